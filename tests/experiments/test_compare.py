"""Stored runs: listed, shown, exported, compared in pairs, and put on one page."""

import csv
import json

import numpy as np
import pytest
from command import expect_refused

from experiments import compare, serial, store, stored
from experiments.findings import ABOVE_ZERO, Finding
from experiments.intervals import interval

PIXEL = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f"
    b"\x15\xc4\x89\x00\x00\x00\x00IEND\xaeB`\x82"
)


def made(units, **changes):
    """A run as the command stores it, with changes to its inputs, config and result."""
    effect = interval(np.array([1.0, 2.0, 4.0]))
    finding = Finding("low-rank/figure-2/fewer", "wanda, 50%", effect, "sinks", "sequences",
                      ABOVE_ZERO, "dense: 9")  # fmt: skip
    run = {
        "started": "2026-01-02T00:00:00+00:00",
        "command": "ctr experiment low-rank-figure-2",
        "question": "How many?",
        "config": {"kind": "Config", "amounts": {"windows": 3, "context": 64}},
        "seed": None,
        "inputs": {
            "kind": "Inputs", "model": "m", "model_sha256": "a" * 64, "text": "t",
            "text_sha256": "b" * 64, "bos": "prepended", "first_ids": [1, 5], "device": "cpu",
            "dtype": "float32", "threads": 1, "kernels": {},
        },
        "versions": {"python": "3", "commit": "abc"},
        "wall_seconds": 1.5,
        "peak_bytes": 10,
        "out": "/nowhere",
        "result": {
            "units": units,
            "findings": [finding],
            "tables": [{"columns": ["x", "y"], "rows": [["one", "2"]], "caption": "A table."}],
        },
    }  # fmt: skip
    for name, change in changes.items():
        run[name] = {**run[name], **change} if isinstance(change, dict) else change
    return serial.plain(run)


@pytest.fixture
def kept(tmp_path):
    """Write a run's folder and give its path."""

    def write(name, units, **changes):
        folder = tmp_path / name
        (folder / "pictures").mkdir(parents=True)
        (folder / "result.json").write_text(serial.dumps(made(units, **changes)))
        return folder

    return write


def test_differences_are_paired_and_their_order_is_after_less_before(here, kept, tmp_path):
    rng = np.random.default_rng(3)
    a = rng.normal(5, 3, 12)
    b = a + 0.25  # by itself far below the spread of either
    one, two = kept("one", {"nats": a, "own": a}), kept("two", {"nats": b})
    done = here("compare", one, two, "--out", "both")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "both" / "result.json").read_text())["result"]
    (pair,) = result["pairs"]
    assert pair["less"]["n"] == 12
    for end in ("mean", "low", "high"):
        assert pair["less"][end] == pytest.approx(0.25, abs=1e-12)
    assert pair["before"]["high"] - pair["before"]["low"] > 1
    assert result["missing"] == ["own"]
    assert result["verdicts"][0]["verdicts"] == ["shown", "shown"]
    assert (tmp_path / "both" / "pictures" / "differences.png").exists()
    assert "1 of 1 differences" in done.stdout


def test_units_without_a_number_in_either_run_leave_the_pair():
    before = np.array([1.0, np.nan, 3.0, 4.0, 7.0])
    after = np.array([2.0, 5.0, np.nan, 6.0, 8.5])
    (pair,) = compare.paired("x", before, after)
    assert pair.less == interval(np.array([1.0, 2.0, 1.5]))
    assert pair.before == interval(np.array([1.0, 4.0, 7.0]))
    assert list(compare.paired("x", before[:3], after[:3])) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"inputs": {"text_sha256": "c" * 64}}, "different text"),
        ({"inputs": {"first_ids": [2, 5]}}, "different first ids"),
        ({"inputs": {"bos": "none"}}, "different bos"),
        ({"inputs": {"model_sha256": "d" * 64}}, "--models"),
        ({"config": {"amounts": {"windows": 3, "context": 65}}}, "different context"),
        ({"result": {"units": {"nats": [1.0, 2.0]}}}, "3 and 2 values"),
        ({"result": {"units": {"else": [1.0, 2.0, 3.0]}}}, "no values of the same name"),
    ],
)
def test_runs_on_other_inputs_are_refused_in_one_line(here, kept, changes, word):
    units = {"nats": [1.0, 2.0, 3.0]}
    one, two = kept("one", units), kept("two", units, **changes)
    expect_refused(here("compare", one, two, "--out", "both"), word)


def test_two_models_are_compared_where_that_is_asked_for(here, kept):
    units = {"nats": [1.0, 2.0, 3.0]}
    one = kept("one", units)
    two = kept("two", units, inputs={"model_sha256": "d" * 64})
    done = here("compare", one, two, "--models", "--out", "both")
    assert done.returncode == 0, done.stderr


def test_a_run_that_is_not_there_is_one_line(here, tmp_path):
    expect_refused(here("compare", "7", "8"), "no run 7")
    expect_refused(here("compare", tmp_path, tmp_path), "no run")
    expect_refused(here("runs", "nowhere"), "nowhere")
    expect_refused(here("report"), "runs")


@pytest.fixture
def filled(tmp_path):
    path = tmp_path / "store" / "runs.sqlite"
    values = [0.1, float("nan"), 1 / 3]
    store.add(path, **made({"nats": values}))
    later = {"started": "2026-03-01T00:00:00+00:00", "command": "ctr perplexity", "result": {}}
    store.add(path, **{**made({}), **later})
    return path


def test_runs_are_filtered_and_shown(here, filled):
    everything = here("runs").stdout
    assert "1 shown" in everything
    assert "ctr perplexity" in everything
    assert "figure-2" not in here("runs", "--since", "2026-02-01").stdout
    assert "perplexity" not in here("runs", "--about", "low-rank").stdout
    assert [row["id"] for row in json.loads(here("runs", "--json", "--last", 1).stdout)] == [2]
    assert json.loads(here("runs", "--json", "--model", "other").stdout) == []
    whole = here("runs", "1").stdout
    for word in ("low-rank/figure-2/fewer", "shown", "nats: 3 values", "b" * 64, "abc"):
        assert word in whole


def test_an_export_holds_every_number(here, filled, tmp_path):
    for name, options in {"f.csv": (), "u.csv": ("--units",), "all.json": ()}.items():
        done = here("runs", "--export", name, *options)
        assert done.returncode == 0, done.stderr
    found = list(csv.DictReader((tmp_path / "f.csv").read_text().splitlines()))
    assert [row["run"] for row in found] == ["1", "2"]
    effect = interval(np.array([1.0, 2.0, 4.0]))
    assert [float(found[0][name]) for name in ("mean", "low", "high")] == list(effect[:3])
    assert (found[0]["verdict"], found[0]["claim"]) == ("shown", "low-rank/figure-2/fewer")
    assert found[1]["verdict"] == ""
    units = list(csv.DictReader((tmp_path / "u.csv").read_text().splitlines()))
    values = [float(row["value"]) for row in units]
    np.testing.assert_array_equal(values, [0.1, float("nan"), 1 / 3])
    assert {row["text_sha256"] for row in units} == {"b" * 64}
    assert len(json.loads((tmp_path / "all.json").read_text())) == 2
    expect_refused(here("runs", "--export", "f.csv"), "exists")
    expect_refused(here("runs", "--export", "f.txt"), ".csv or .json")


def test_one_page_has_claims_tables_and_pictures_of_every_run(here, kept, filled, tmp_path):
    folder = kept("one", {"nats": [1.0, 2.0, 3.0]})
    drawn = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'
    (folder / "pictures" / "a.b.svg").write_text(drawn)
    (folder / "pictures" / "a.b.png").write_bytes(PIXEL)
    (folder / "pictures" / "half.svg").write_text(drawn)
    done = here("report", folder, "1", "2", "--out", "page")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page" / "report.html").read_text()
    assert page.count("A table.") == 2
    assert "ctr perplexity" in page
    assert (tmp_path / "page" / "pictures" / "1-a-b.png").read_bytes() == PIXEL
    assert not (tmp_path / "page" / "pictures" / "1-half.png").exists()
    expect_refused(here("report", "1", "1", "--out", "twice"), "each once")


def test_a_run_reads_the_same_from_folder_and_store(kept, filled, monkeypatch):
    monkeypatch.setenv("CTR_STORE", str(filled))
    from_folder = stored.run(str(kept("one", {"nats": [0.1, float("nan"), 1 / 3]})))
    from_store = stored.run("1")
    assert stored.findings(from_folder) == stored.findings(from_store)
    np.testing.assert_array_equal(
        stored.units(from_folder)["nats"], stored.units(from_store)["nats"]
    )
    assert from_folder.inputs == from_store.inputs


def test_what_was_not_measured_is_read_as_untested(kept):
    nothing = Finding("low-rank/figure-2/oats", "oats, 50%", None, "sinks", "sequences",
                      ABOVE_ZERO, "", "too few")  # fmt: skip
    row = stored.run(str(kept("one", {}, result={"findings": [nothing]})))
    assert stored.findings(row) == [nothing]
    assert stored.findings(row)[0].verdict == "untested"
