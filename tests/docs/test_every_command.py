"""Of each page one command line is run as `every_command.py` runs all of them: see `quick.json`."""

import json
import os
import re
import subprocess
import sys

import pytest
from cuts import NO_SINKS
from every_command import QUICK, cut, lines
from shown import PAGES, ROOT

CHOSEN: dict[str, str] = json.loads(QUICK.read_text())


def test_the_chosen_lines_still_stand_on_their_pages():
    said = {str(p.relative_to(ROOT)): {line.text for line in lines(p)} for p in PAGES}
    gone = [f"{page}: {line}" for page, line in CHOSEN.items() if line not in said[page]]
    assert not gone, f"run tests/docs/every_command.py --write: {gone}"


def test_the_chosen_lines_run(measured, tmp_path):
    rows = tmp_path / "rows.jsonl"
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "docs" / "every_command.py", "--quick", "--rows", rows],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    ran = [json.loads(row) for row in rows.read_text().splitlines()]
    assert len(ran) == len(CHOSEN) > 10
    assert all(row["code"] == 0 and "exit" not in row for row in ran)  # no refusal is chosen
    measured("pages with a line that was run", len(ran), "every line: every_command.py")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ctr probe MODEL --text FILE", "ctr probe smollm2 --text wiki.txt"),
        ("ctr experiment chain --preset laptop", "ctr experiment chain --preset smallest"),
        ("OMP_NUM_THREADS=2 ctr runs --last 3", "ctr runs --last 3"),
    ],
)
def test_a_line_is_changed_by_the_table_only(line, wanted):
    words = cut(line)
    assert words[: len(wanted.split())] == wanted.split()
    options = words[len(wanted.split()) :]
    assert options == ([] if "probe" not in line else ["--seq", "64", "--sequences", "8"])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("smollm2 has no later sinks at --epsilon 0.1", True),
        ("this model has no later sinks on the text that aims: take another one", True),
        ("--heads: no head has a later sink on this text; give a longer one", True),
        ("no head of these layers keeps a first-token sink in 90% of 2 prompts: choose", True),
        ("no command 'experiment sinks'; did you mean experiment secondary-sinks", False),
        ("EXPERIMENT 'sinks': no such experiment; did you mean sparse-sinks?", False),
        ("--grid sinks: no such option; it has first-sinks", False),
    ],
)
def test_only_a_model_without_sinks_is_an_expected_refusal(said, expected):
    assert bool(re.search(NO_SINKS, f"ctr: error: {said}")) is expected
