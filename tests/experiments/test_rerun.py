"""The same question from its stored Config gives the same numbers; another number is named."""

import json
import math

import pytest
from command import expect_refused
from tiny import ENGLISH

from experiments.rerun import compared


@pytest.fixture
def run(here, model, tmp_path):
    """A run of a command that reads a text."""
    text = tmp_path / "a.txt"
    text.write_text(" ".join(ENGLISH[2:]) * 60)
    sizes = ("--tokens", 300, "--context", 64, "--stride", 63)
    done = here("perplexity", model, "--text", text, *sizes, "--out", "run")
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


def test_the_same_numbers(here, run):
    for which in (run, 1):
        done = here("rerun", which)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "all the same, bit for bit" in done.stdout


def test_a_compression_that_was_saved_is_the_same_again(here, model, tmp_path):
    """Its seconds are never the same, and what was written is not written again."""
    text = tmp_path / "a.txt"
    text.write_text(" ".join(ENGLISH[2:]) * 60)
    sizes = ("--calibration", 2, "--windows", 2, "--sequences", 2, "--context", 32)
    words = (model, "saved", "--method", "wanda", "--text", text, *sizes, "--out", "run")
    done = here("compress", *words)
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / "run" / "result.json").read_text())["result"]
    assert stored["stored"] is not None
    assert stored["weights"]["seconds"] > 0
    done = here("rerun", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    file = tmp_path / "run" / "result.json"
    whole = json.loads(file.read_text())
    whole["result"]["weights"]["kept"] += 1
    file.write_text(json.dumps(whole))
    done = here("rerun", "run")
    assert done.returncode == 1
    assert "weights.kept" in done.stdout
    assert "1 not the same" in done.stdout


def test_a_number_that_differs_in_its_last_bit_is_named(here, run):
    file = run / "result.json"
    stored = json.loads(file.read_text())
    stored["result"]["ppl"] = math.nextafter(stored["result"]["ppl"], math.inf)
    file.write_text(json.dumps(stored))
    done = here("rerun", run)
    assert done.returncode == 1
    assert "ppl" in done.stdout
    assert "1 not the same" in done.stdout


def test_another_text_is_another_question(here, run, tmp_path):
    (tmp_path / "a.txt").write_text(" ".join(ENGLISH[2:]) * 61)
    done = here("rerun", run)
    assert done.returncode == 1
    assert "inputs.text_sha256" in done.stdout


def test_a_text_that_has_moved_is_found_by_its_name(here, run, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "a.txt").rename(tmp_path / "there" / "a.txt")
    expect_refused(here("rerun", run), "a.txt", "--at")
    done = here("rerun", run, "--at", tmp_path / "there")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_run_is_refused(here, tmp_path):
    expect_refused(here("rerun", "nowhere"), "nowhere")
    expect_refused(here("rerun", 77), "77")
    (tmp_path / "result.json").write_text("{}")
    expect_refused(here("rerun", tmp_path), "no run")


def test_every_value_is_compared():
    before = {"a": [1.0, {"b": "x"}], "c": float("nan")}
    before = json.loads(json.dumps(before).replace("NaN", '"nan"'))
    assert compared(before, before) == (3, [])
    _, found = compared(before, {"a": [1, {"b": "y"}], "d": 0})
    assert {one.place for one in found} == {"a[0]", "a[1].b", "c", "d"}
    _, found = compared({"a": [1, 2]}, {"a": [1]})
    assert [one.place for one in found] == ["a"]
