"""`ctr toy certify`, as a user types it."""

import errno
import json
import re

import pytest
from command import expect_refused
from command import here as ctr_here

from toy.certify import certificate, check

__all__ = ["ctr_here"]  # a fixture


@pytest.fixture
def here(ctr_here):
    """The command inside this process, in an empty folder with a store of its own."""
    return lambda *arguments: ctr_here("toy", "certify", *arguments)


def test_proof_and_check_without_a_word_on_folders(here, tmp_path):
    """As the documentation prints them, one after the other."""
    assert here("--T", 4, "--t", 2).returncode == 0
    assert here("--check", "certificate.json").returncode == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"toy-certify", "toy-certify-check"}


def test_a_certificate_is_written_and_checked_again(here, tmp_path):
    done = here("--T", 6, "--t", 3, "--X", 1, "--s", 12, "--width", "1e-3", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "every s from 11.994 to 12.006" in done.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text())["result"]
    assert 0.48 < result["reached"] <= result["proved"] <= 1
    assert result["leaves"] >= 1
    written = json.loads((tmp_path / "certificate.json").read_text())
    assert written["b"] == ["0.29985", "0.30015"]
    assert written["sha256"] == result["sha256"]

    done = here("--check", "certificate.json", "--out", "again")
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "again" / "result.json").read_text())["result"]
    assert again["prover_seconds"] is None
    for same in ("statement", "proved", "reached", "leaves", "sha256", "bound"):
        assert again[same] == result[same]

    file = tmp_path / "certificate.json"
    file.write_text(file.read_text().replace('"T": 6', '"T": 5'))
    expect_refused(here("--check", "certificate.json", "--out", "third"), "certificate.json")
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fraction", "0.4"], ["refuted: |f - m| >= ", "x1 = "]),
        (["--fraction", "0.5", "--boxes", "9"], ["not proved", "--boxes"]),
        (["--d", "0.01"], ["cannot hold the query positive"]),
        (["--t", "6"], ["t = 6 of T = 6"]),
        (["--s", "1"], ["must exceed 1"]),
        (["--s", "nan"], ["s = nan"]),
        (["--X", "inf"], ["X = inf"]),
        (["--width", "-1"], ["--width"]),
        (["--width", "nan"], ["--width"]),
        (["--fraction", "0"], ["--fraction"]),
        (["--boxes", "0"], ["--boxes"]),
        (["--seconds", "0"], ["--seconds"]),
        (["--b-width", "-1"], ["--b-width"]),
        (["--b-width", "inf"], ["b-width = inf"]),
        (["--T", "129"], ["--T 129", "128"]),
        (["--d", "-1"], ["d from -1.0005", "must exceed 0"]),
        (["--d", "1e300"], ["9.99500e+299", "9 digits"]),
        (["--width", "1e-300"], ["12.0000", "40 behind"]),
        (["--certificate", "run/it.json"], ["--certificate run/it.json lies in --out run"]),
        (["--certificate", "run"], ["--certificate run lies in --out run"]),
        (["--check", "missing.json"], ["missing.json is not there"]),
        (["--check", "."], ["not an ordinary file"]),
        (["--certificate", "no/where.json"], ["no"]),
    ],
)
def test_what_cannot_be_proved_is_one_line(here, tmp_path, options, words):
    expect_refused(here(*options, "--out", "run"), *words)
    assert not (tmp_path / "certificate.json").exists()
    assert not (tmp_path / "run").exists()


def test_an_error_too_small_for_a_float_is_not_shown_as_none(here, tmp_path):
    done = here("--s", 1000, "--out", "run")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())["result"]
    for number in (result["error"], *result["bound"]):
        assert float(number) == 0
        assert re.fullmatch(r"[1-9][.0-9]*e-42[78]", number)


def test_b_has_a_width_of_its_own(here, tmp_path):
    done = here("--b", 0, "--b-width", "0.1", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "certificate.json").read_text())["b"] == ["-0.05", "0.05"]


def test_a_place_that_cannot_be_written_is_named_before_the_proof(here, monkeypatch, tmp_path):
    monkeypatch.setattr(certificate.os, "access", lambda *_: False)
    expect_refused(here("--out", "run"), "cannot write certificate.json", "read-only")
    assert not (tmp_path / "certificate.json").exists()


def test_the_disk_of_the_certificate_is_the_one_that_is_full(here, monkeypatch, tmp_path):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(certificate.os, "fsync", full)
    expect_refused(here("--out", "run"), "cannot write certificate.json: No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_long_path_of_halvings_is_not_printed_whole(here, tmp_path):
    here("--out", "run")
    content = json.loads((tmp_path / "certificate.json").read_text())
    del content["sha256"]
    content["leaves"] = {"x1-" * 9000: "1", "x1+": "1"}
    (tmp_path / "long.json").write_text(check.sealed(content))
    done = here("--check", "long.json", "--out", "again")
    expect_refused(done, "do not fill the box")
    assert len(done.stderr) < 300


def test_nothing_of_the_users_is_overwritten(here, tmp_path):
    (tmp_path / "certificate.json").write_text("mine")
    expect_refused(here("--out", "run"), "certificate.json holds something else")
    assert (tmp_path / "certificate.json").read_text() == "mine"
