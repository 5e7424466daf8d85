"""`ctr search`: both methods from end to end, and a search that is killed and goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import random_text, tiny_llama

from bridge.decode.plan import Setting, read_share
from bridge.decode.recipe import Recipe
from bridge.sites import linears
from experiments.cli import main
from experiments.decoding import search
from experiments.intervals import Interval
from mech.load import load


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    tiny_llama(folder / "model")
    random_text(folder / "text.txt", 0)
    return folder


def arguments(material, into, *more) -> list[str]:
    return [
        *("search", str(material / "model"), "--text", str(material / "text.txt")),
        *("--calibration", "3", "--samples", "3", "--windows", "3", "--context", "33"),
        *("--length", "17", "--sparsity", "0.6", "--processes", "1"),
        *("--state", str(into / "state"), "--out", str(into / "out"), *more),
    ]


def ran(monkeypatch, capsys, words) -> str:
    store = Path(words[words.index("--out") + 1]).parent / "store.sqlite"
    monkeypatch.setenv("CTR_STORE", str(store))
    monkeypatch.setattr(sys, "argv", ["ctr", *words])
    main()
    return capsys.readouterr().out


EVOLUTION = ("--method", "evolution", "--population", "5", "--generations", "2", "--group", "5")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--save", "text.txt/plans"),
        ("--state", "text.txt"),
        ("--population", "3"),
        ("--generations", "-1"),
        ("--group", "0"),
        ("--length", "0"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_the_work(
    material, tmp_path, monkeypatch, capsys, option, value
):
    monkeypatch.chdir(material)
    monkeypatch.setattr("experiments.measure.loaded_model", lambda *_: pytest.fail("worked"))
    with pytest.raises(SystemExit):
        ran(monkeypatch, capsys, arguments(material, tmp_path, option, value))
    assert f"error: {option} {value}" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["knapsack", "evolution"])
def test_a_search_writes_a_plan_that_spends_its_budget(
    method, material, tmp_path, monkeypatch, capsys
):
    more = EVOLUTION if method == "evolution" else ("--rounds", "1")
    words = arguments(material, tmp_path, "--save", str(tmp_path / "plan"), *more)
    text = ran(monkeypatch, capsys, words)
    assert f"the plan that {method} found" in text
    model = load(str(material / "model")).model
    shapes = {n: (m.out_features, m.in_features) for n, m in linears(model).items()}
    says = json.loads((tmp_path / "plan" / "plan.json").read_text())
    plan = {name: Setting(**fields) for name, fields in says["plan"].items()}
    assert read_share(plan, shapes) == pytest.approx(0.4, abs=1e-9)
    recipe = Recipe.load(tmp_path / "plan" / "recipe")
    recipe.check(model)
    assert dict(recipe.plan) == plan
    result = json.loads((tmp_path / "out" / "result.json").read_text())["result"]
    assert result["plan"] == says["plan"]
    dense, teal, *_, found = result["judged"]
    assert dense["above"]["mean"] == 0
    assert abs(found["read"] - 0.4) < 0.05
    assert teal["teal"] is None
    assert found["teal"]["n"] == 3
    kinds = {kind["kind"]: kind for kind in result["kinds"]}
    assert kinds["mlp.down_proj"]["linears"] == 2
    ranks = {name: setting.rank(*shapes[name]) for name, setting in plan.items()}
    assert sum(kind["low_rank"] for kind in kinds.values()) == sum(r > 0 for r in ranks.values())
    if method == "evolution":
        assert {setting.sparsity for setting in plan.values()} == {0.6}
    # The same state again: nothing is measured twice, and the plan is the same.
    journal = next((tmp_path / "state").iterdir())
    before = journal.read_text()
    ran(monkeypatch, capsys, arguments(material, tmp_path, "--replace", *more))
    assert journal.read_text() == before
    again = json.loads((tmp_path / "out" / "result.json").read_text())["result"]
    assert again["plan"] == says["plan"]


def test_a_killed_search_goes_on_to_the_same_plan(material, tmp_path, monkeypatch, capsys):
    """SIGKILL of two processes in the middle; one process that nobody kills ends at the same."""
    root = Path(__file__).parent.parent.parent
    words = arguments(material, tmp_path, *EVOLUTION, "--save", str(tmp_path / "plan"))
    words[words.index("--processes") + 1] = "2"
    command = [sys.executable, "-c", "from experiments.cli import main; main()", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CTR_STORE": str(tmp_path / "store")}
    process = subprocess.Popen(command, cwd=root, env=environment, start_new_session=True)
    while process.poll() is None:
        found = [f.read_text().count("\n") for f in (tmp_path / "state").glob("*.jsonl")]
        if found and found[0] > 2:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "plan").exists()
    kept = next((tmp_path / "state").glob("*.jsonl")).read_text()
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)
    journal = next((tmp_path / "state").glob("*.jsonl")).read_text()
    assert journal.startswith(kept[: kept.rfind("\n") + 1])
    measured = [name for line in journal.splitlines()[1:] for name in json.loads(line)]
    assert len(measured) == len(set(measured))
    whole = tmp_path / "whole"
    ran(monkeypatch, capsys, arguments(material, whole, *EVOLUTION, "--save", str(whole / "plan")))
    plans = [(place / "plan" / "plan.json").read_text() for place in (tmp_path, whole)]
    assert plans[0] == plans[1]


def test_a_plan_that_reads_more_has_not_won():
    def page(read):
        said = Interval(-0.1, -0.2, -0.05, 12)
        judged = [
            search.Judged(search.TEAL, 9.0, 0.5, 0.5, said, None),
            search.Judged(search.FOUND, 8.0, 0.5, read, said, said),
        ]
        result = search.Result(search.Config(), None, 2.0, 3, {}, judged, [])  # type: ignore
        return search._text(result)[0]

    assert "predicts better than" in page(0.504)
    assert "0.5040 of the bytes read (planned 0.5000; TEAL: 0.5000)." in page(0.504)
    assert "no win" in page(0.506)
