"""The command itself: what it lists, stores and prints, and how it ends."""

import json
import os
import signal
import subprocess
import sys

import pytest
from command import CTR, expect_refused

from experiments import cli, report
from experiments.progress import paper


def test_overview_lists_every_command(ctr):
    done = ctr("--help")
    assert done.returncode == 0
    for name, command in {**cli.COMMANDS, **cli.TOOLS}.items():
        assert f"ctr {name}" in done.stdout
        assert command.example in done.stdout


def test_the_overview_tells_pictures_of_the_theory_from_models(here):
    told = here("experiment").stdout
    models, pictures = told.index("language models:"), told.index("Pictures of the theory:")
    for name in cli.COMMANDS:
        if name.startswith("experiment "):
            theory = name in cli.LISTED["Pictures of the theory"]
            assert (told.index(f"\n  ctr {name} ") > pictures) == theory
            assert told.count(f"\n  ctr {name} ") == 1
    assert models < pictures
    assert "ctr toy" not in told
    assert "Tools" not in told


def test_every_command_has_help_with_its_example(ctr):
    for name, command in {**cli.COMMANDS, **cli.TOOLS}.items():
        done = ctr(*name.split(), "--help")
        assert done.returncode == 0, done.stderr
        squeezed = " ".join(done.stdout.replace("│", " ").split())
        assert " ".join(command.example.split()) in squeezed, name


def test_a_reader_that_stops_reading_is_no_error():
    done = subprocess.run(
        f"{CTR} probe --help | head -1", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""


def test_runs_are_stored_and_exported(ctr, model, tmp_path):
    for out in ("one", "two"):
        assert ctr("perplexity", model, "--tokens", 200, "--out", out).returncode == 0
    rows = json.loads(ctr("runs", "--json").stdout)
    assert [row["id"] for row in rows] == [1, 2]
    row = rows[0]
    assert row["config"]["context"] == 512
    assert len(row["inputs"]["model_sha256"]) == 64
    assert len(row["inputs"]["text_sha256"]) == 64
    assert row["versions"]["torch"]
    assert row["peak_bytes"] > 0
    assert "ctr perplexity" in ctr("runs").stdout


def test_doctor_names_what_is_there(ctr):
    done = ctr("doctor")
    for word in ("torch", "hard_threshold on cpu", "demo model", "run store"):
        assert word in done.stdout


def test_doctor_says_what_would_fail(ctr, tmp_path):
    done = ctr("doctor", CTR_DATA=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "fails" in done.stdout


def test_an_answer_outlives_its_reader_and_its_store(model, tmp_path):
    """The page stands although nobody reads standard output and no row can be written."""
    done = subprocess.run(
        f"{CTR} perplexity {model} --tokens 200 --out run | true",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "CTR_STORE": "/dev/null/x", "OMP_NUM_THREADS": "1"},
    )
    assert "Traceback" not in done.stderr
    assert "not stored" in done.stderr
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["report.html", "result.json"]


def test_standard_output_that_is_full_does_not_take_the_answer(tmp_path):
    """What was asked stands in its folder, and the line says so."""
    done = subprocess.run(
        f"{CTR} toy certify --T 3 --t 2 --out run > /dev/full",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "CTR_STORE": str(tmp_path / "s.sqlite")},
    )
    expect_refused(done, "standard output: No space left", "the answer is in run")
    assert (tmp_path / "run" / "result.json").exists()


def test_a_table_without_rows_is_its_caption(capsys, tmp_path):
    empty = report.Table(("erased by", "value"), [], "Activations above 100: none.")
    section = report.Section("Massive activations", [], [empty])
    cli._print([section])
    report.write(tmp_path, "title", [section], {})
    page = (tmp_path / "report.html").read_text()
    for told in (capsys.readouterr().out, page):
        assert "Activations above 100: none." in told
        assert "erased by" not in told
    assert "<thead>" not in page


def test_brackets_of_a_glob_are_printed(capsys):
    paper().print("*.self_attn.[qk]_proj :bug:")
    assert capsys.readouterr().out == "*.self_attn.[qk]_proj :bug:\n"


# Tests that a shell runs in its background would hand down that Ctrl-C is ignored.
HEEDED = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_run_that_is_ended_leaves_nothing(model, tmp_path, name):
    """In a folder that it had to make, in the middle of its work."""
    environment = {**os.environ, "CTR_STORE": str(tmp_path / "s.sqlite"), "OMP_NUM_THREADS": "1"}
    asked = ["compress", model, "--windows", "100", "--context", "500", "--out", "a/b/run"]
    with subprocess.Popen(
        [sys.executable, "-c", HEEDED, CTR, *asked],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("BOS"):
            assert process.poll() is None
        assert (tmp_path / "a" / "b").is_dir()
        process.send_signal(getattr(signal, name))
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from experiments.cli import main
sys.argv = ["ctr", "toy", "train", "--seeds", "2", "--steps", "40", "--out", "run"]
main()
"""


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    """The system refuses to write more than 20 kB: the pictures do not fit."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "CTR_STORE": str(tmp_path / "s.sqlite")},
    )
    expect_refused(done, "disk full", "run")
    assert [p.name for p in tmp_path.iterdir()] == []
