"""All of the papers by one command: what is answered stays, what fails stops nothing."""

import json
import types
from pathlib import Path

import pytest
from command import expect_refused

from experiments import everything, serial
from experiments.findings import ABOVE_ZERO, Finding
from experiments.intervals import Interval
from experiments.ledger.claims import CLAIMS
from experiments.papers.roster import PAPERS
from experiments.sources import ROOT, sources

NAMES = [name.removeprefix("experiment ") for name in PAPERS][:3]


@pytest.fixture
def ran(monkeypatch):
    """Which experiments were run; a run writes one finding, and those in `fail` fail."""
    done = types.SimpleNamespace(names=[], fail=set(), options=[])

    def run(command, *, stdout, **_):
        name = command[4]
        done.names.append(name)
        done.options.append(command[5:])
        if name in done.fail:
            stdout.write("…\nValueError: no\n")
            return types.SimpleNamespace(returncode=1)
        folder = command[command.index("--out") + 1]
        claim = next(iter(CLAIMS))
        found = Finding(claim, "c", Interval(1, 0.5, 2, 9), "u", "o", ABOVE_ZERO, "none")
        stored = {
            "command": f"ctr experiment {name}",
            "config": {},
            "inputs": {},
            "versions": {"commit": "c"},
            "started": "2026",
            "wall_seconds": 1.0,
            "result": {"findings": serial.plain([found])},
        }
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "result.json").write_text(json.dumps(stored))
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(everything.subprocess, "run", run)
    return done


def ask(tmp_path, **options):
    options = {"only": tuple(NAMES), "out": tmp_path / "out"} | options
    return everything.main(everything.Config(**options))


def test_what_is_answered_is_not_asked_again(ran, tmp_path, capsys):
    assert ask(tmp_path) == 0
    assert ran.names == NAMES
    assert ask(tmp_path) == 0
    assert ran.names == NAMES
    told = capsys.readouterr()
    assert told.out.count(next(iter(CLAIMS))) == 2 * len(NAMES)
    assert ask(tmp_path, replace=True) == 0
    assert ran.names == NAMES * 2


def test_what_fails_stops_nothing_and_is_asked_again(ran, tmp_path, capsys):
    ran.fail = {NAMES[1]}
    assert ask(tmp_path) == 1
    assert ran.names == NAMES
    told = capsys.readouterr()
    assert f"{NAMES[1]} failed: exit code 1, ValueError: no" in told.out
    ran.fail = set()
    assert ask(tmp_path) == 0
    assert ran.names == [*NAMES, NAMES[1]]


def test_other_code_or_another_question_is_asked_anew(ran, tmp_path, monkeypatch):
    assert ask(tmp_path) == 0
    text = tmp_path / "a.txt"
    text.write_text("a")
    assert ask(tmp_path, text=text) == 0
    reads = [n for n, o in zip(ran.names[3:], ran.options[3:], strict=True) if str(text) in o]
    assert ran.names[3:] == reads  # only experiments that read a text are asked again
    assert reads
    before = len(ran.names)
    monkeypatch.setattr(everything, "sources", lambda module: "other")
    assert ask(tmp_path, text=text, jobs=2) == 0
    assert sorted(ran.names[before:]) == sorted(NAMES)


def test_an_answer_that_is_gone_is_asked_again(ran, tmp_path):
    assert ask(tmp_path) == 0
    (tmp_path / "out" / "laptop" / NAMES[0] / "result.json").unlink()
    assert ask(tmp_path) == 0
    assert ran.names == [*NAMES, NAMES[0]]


def test_what_cannot_be_is_refused(here):
    expect_refused(here("experiment", "all", "--only", "nothing-*"), "nothing-*")
    expect_refused(here("experiment", "all", "--jobs", 0), "--jobs 0")


def test_code_is_what_is_imported_and_no_words_on_claims(monkeypatch):
    from experiments import sources as these
    from experiments.papers import low_rank_figure_2 as figure

    first = sources(figure)
    digest = these._digest
    read = set()

    def watched(file):
        read.add(str(file.relative_to(ROOT)))
        return digest(file)

    monkeypatch.setattr(these, "_digest", watched)
    these._library.cache_clear()
    assert sources(figure) == first
    assert {"experiments/papers/low_rank_figure_2.py", "experiments/parts/work.py"} <= read
    assert {"bridge/compress.py", "mech/load.py", "kernels/op.py"} <= read
    assert not any(name.startswith(("experiments/ledger/", "tests/", "toy/")) for name in read)
    changed = "bridge/compress.py"
    monkeypatch.setattr(these, "_digest", lambda f: "x" if str(f).endswith(changed) else digest(f))
    these._library.cache_clear()
    assert sources(figure) != first
    these._library.cache_clear()
