"""Runs become records without the machine's paths; verdicts follow from what was measured."""

import json

import pytest
from command import expect_refused

from experiments import serial
from experiments.findings import ABOVE_ZERO, Finding
from experiments.intervals import Interval
from experiments.ledger import command, record
from experiments.ledger.claim import Claim
from experiments.ledger.rows import judged, rows
from experiments.settings import BadOption

CLAIM = "low-rank/figure-2/fewer"


def finding(low, high, *, claim=CLAIM, case="wanda"):
    effect = None if low is None else Interval((low + high) / 2, low, high, 7)
    return Finding(claim, case, effect, "sinks", "sequences", ABOVE_ZERO, "dense: 3 [2, 4]", "why")


def run(folder, *findings, options="", commit="abc123", name="low-rank-figure-2"):
    """A run's folder as the command leaves it."""
    folder.mkdir(parents=True)
    table = {"columns": ["model", "sinks"], "rows": [["wanda", "1.5 [1, 2]"]], "caption": ""}
    stored = {
        "started": "2026-11-22T20:00:00+00:00",
        "command": f"ctr experiment {name} {options} --text /a/b/w.txt --out /a/out --replace",
        "config": {"kind": "Config", "reading": {"kind": "Reading", "text": "/a/b/w.txt"}},
        "inputs": {"kind": "Inputs", "model": "smollm2", "text": "/a/b/w.txt (evaluation half)"},
        "versions": {"python": "3", "platform": "here", "commit": commit},
        "wall_seconds": 2.5,
        "result": {"findings": serial.plain(findings), "tables": [table]},
    }
    (folder / "result.json").write_text(serial.dumps(stored))
    return folder


def test_a_record_comes_back_as_it_was_written(tmp_path):
    made = record.of_run(run(tmp_path / "run", finding(1, 2), finding(None, None)))
    file = record.write(made, tmp_path)
    assert file.name == "low-rank-figure-2.json"
    assert "/a/" not in file.read_text()
    (back,) = record.records(tmp_path)
    assert [f.verdict for f in back.findings] == ["shown", "untested"]
    assert serial.plain(back) == serial.plain(made)
    assert back.command == "ctr experiment low-rank-figure-2 --text w.txt"
    assert (back.preset, back.commit, back.date) == ("laptop", "abc123", "2026-11-22")
    assert back.inputs["text"] == "w.txt (evaluation half)"
    assert [tuple(held) for held in back.figures] == [("wanda: sinks", 1.5, 1.0, 2.0)]


def test_a_run_on_other_draws_is_kept_beside_the_first(tmp_path):
    for number, seed in enumerate((0, 3, 3)):
        folder = run(tmp_path / f"run-{number}", finding(1, 2))
        stored = json.loads((folder / "result.json").read_text())
        stored["config"]["seed"] = seed
        (folder / "result.json").write_text(json.dumps(stored))
        record.write(record.of_run(folder), tmp_path)
    assert sorted(file.name for file in tmp_path.glob("*.json")) == [
        "low-rank-figure-2.json",
        "low-rank-figure-2.seed-3.json",
    ]
    found = record.records(tmp_path)
    assert [len(one.findings) for one in found] == [1, 1]


def test_a_verdict_that_was_changed_by_hand_is_not_read(tmp_path):
    file = record.write(record.of_run(run(tmp_path / "run", finding(-2, -1))), tmp_path)
    plain = json.loads(file.read_text())
    assert plain["findings"][0]["verdict"] == "contradicted"
    plain["findings"][0]["verdict"] = "shown"
    file.write_text(json.dumps(plain))
    assert record.records(tmp_path)[0].findings[0].verdict == "contradicted"


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"options": "--preset smallest"}, "smallest"),
        ({"options": "--preset=smallest"}, "smallest"),
        ({"commit": "abc123+changes"}, "not committed"),
        ({"commit": ""}, "not committed"),
    ],
)
def test_what_means_nothing_is_refused_unless_it_is_marked(tmp_path, changed, word):
    folder = run(tmp_path / "run", finding(1, 2), **changed)
    with pytest.raises(BadOption, match=word):
        record.of_run(folder)
    marked = record.of_run(folder, force=True)
    assert any(word in mark for mark in marked.marks)


def test_what_is_no_run_of_claims_is_refused(here, tmp_path):
    expect_refused(here("ledger", "--add", tmp_path / "nowhere"), "nowhere", "no run")
    expect_refused(here("ledger", "--add", run(tmp_path / "none")), "no claims")
    strange = run(tmp_path / "strange", finding(1, 2, claim="no/such"))
    expect_refused(here("ledger", "--add", strange), "no/such")
    expect_refused(here("ledger", "--paper", "other"), "other", "low-rank")


def test_a_folder_of_runs_is_all_of_them(tmp_path, monkeypatch, capsys):
    (tmp_path / "records").mkdir()
    monkeypatch.setattr(record.write, "__defaults__", (tmp_path / "records",))
    run(tmp_path / "runs" / "one", finding(1, 2))
    run(tmp_path / "runs" / "two", finding(1, 2), name="low-rank-figure-3")
    (tmp_path / "runs" / "one.log").write_text("")
    assert command.main(command.Config(add=(tmp_path / "runs",))) == 0
    assert len(record.records(tmp_path / "records")) == 2
    assert "1 findings of low-rank-figure-3" in capsys.readouterr().out


CLAIMS = [Claim("a/1", "A.", "x"), Claim("a/2", "B.", "y", "a GPU"), Claim("b/1", "C.", "z")]


def kept(*findings):
    return record.Record("run", "x", "laptop", "", "", "", 0.0, {}, {}, {}, findings, ())


def test_every_claim_has_a_row():
    found = rows(CLAIMS, [kept(finding(1, 2, claim="a/1"), finding(-1, 2, claim="a/1"))])
    assert [row.claim.key for row in found] == ["a/1", "a/1", "a/2", "b/1"]
    assert [row.verdict for row in found] == ["shown", "not shown", "untested", "untested"]
    assert [row.why for row in found] == ["", "", "needs a GPU", "no run of it is kept"]
    assert json.loads(serial.dumps([row.plain() for row in found]))[0]["effect"]["n"] == 7


@pytest.mark.parametrize(
    ("effects", "word"),
    [
        ([(1, 2), (2, 3)], "shown"),
        ([(1, 2), (-1, 3)], "mixed"),
        ([(1, 2), (None, None)], "shown"),
        ([(None, None)], "untested"),
        ([(-2, -1)], "contradicted"),
    ],
)
def test_a_claim_with_several_cases_has_one_word(effects, word):
    cases = rows(CLAIMS[:1], [kept(*(finding(*e, claim="a/1") for e in effects))])
    assert judged(cases) == word


def test_the_ledger_is_printed_in_three_ways(here):
    plain = here("ledger", "--paper", "ours", "--claim", "moment", "--json")
    (first, _) = json.loads(plain.stdout)
    assert first["claim"] == "ours/moment/perplexity"
    assert first["verdict"] == "shown"
    assert first["effect"]["n"] == 16
    table = here("ledger", "--paper", "ours", "--claim", "moment").stdout
    assert "moment/perplexity" in table
    assert "19.9 [17.9, 22]" in table
    assert "| OATS with the whole" in here("ledger", "--claim", "moment", "--markdown").stdout
    none = here("ledger", "--claim", "moment", "--verdict", "contradicted", "--json")
    assert json.loads(none.stdout) == []
