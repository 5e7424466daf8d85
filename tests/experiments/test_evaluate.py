"""`ctr evaluate`: accuracies with and without examples, and one line for what cannot be asked."""

import json

import pytest

from experiments import evaluate
from experiments.progress import Progress
from experiments.settings import Reading


def test_tasks_and_summaries(model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CTR_DATA", raising=False)
    file = tmp_path / "sum.jsonl"
    file.write_text("\n".join(json.dumps({"document": "w1 w2", "summary": "w3"}) for _ in "ab"))
    config = evaluate.Config(Reading(str(model)), shots=(0, 2), limit=2, summaries=file)
    result = evaluate.run(config, Progress())
    again = evaluate.run(config, Progress())
    assert result.rows == again.rows
    assert [(row.task, row.shots) for row in result.rows] == [
        (task, shots) for task in ("labels", "segment-copy") for shots in (0, 2)
    ]
    assert set(result.units) == {*(f"{r.task}/{r.shots}" for r in result.rows), "summaries"}
    assert result.rows[0].more.mean == 0
    assert result.rows[0].first_ids[0] == 1
    assert result.rouge is not None
    (section,) = evaluate.sections(result)
    assert len(section.tables[0].rows) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tasks", "mmlu"), "holds mmlu"),
        (("--tasks", "no-such-task"), "arc-easy"),
        (("--tasks", "piqa"), "folder"),
        (("--shots", "-1"), "shots"),
        (("--shots", "17", "--limit", "4", "--tasks", "labels"), "16 examples"),
        (("--limit", "1"), "limit"),
        (("--summaries", "none.jsonl"), "none.jsonl"),
    ],
)
def test_what_cannot_be_asked_is_one_line(here, model, options, said, monkeypatch):
    monkeypatch.delenv("CTR_DATA", raising=False)
    found = here("evaluate", str(model), *options)
    assert found.returncode == 2
    assert said in found.stderr
    assert len(found.stderr.strip().splitlines()) <= 3
