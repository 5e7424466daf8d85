"""A run's folder is there whole or not at all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.output import OutputRefused, output_folder


def finished_run(path, text="{}"):
    with output_folder(path) as folder:
        (folder / "result.json").write_text(text)


def leftovers(path):
    return [p.name for p in path.parent.iterdir() if p != path]


def test_nothing_stands_under_the_name_until_the_end(tmp_path):
    path = tmp_path / "run"
    with output_folder(path) as folder:
        (folder / "result.json").write_text("{}")
        assert not path.exists()
    assert (path / "result.json").read_text() == "{}"
    assert leftovers(path) == []


def test_an_exception_leaves_nothing(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(KeyError), output_folder(path) as folder:
        (folder / "result.json").write_text("{")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_another_run_is_kept_unless_replaced(tmp_path):
    path = tmp_path / "run"
    finished_run(path, "old")
    with pytest.raises(OutputRefused, match=r"another run.*--replace"), output_folder(path):
        pass
    assert (path / "result.json").read_text() == "old"
    with output_folder(path, replace=True) as folder:
        (folder / "result.json").write_text("new")
    assert (path / "result.json").read_text() == "new"
    assert leftovers(path) == []


def test_a_replacement_that_fails_keeps_the_old_run(tmp_path):
    path = tmp_path / "run"
    finished_run(path, "old")
    with pytest.raises(KeyError), output_folder(path, replace=True):
        raise KeyError
    assert (path / "result.json").read_text() == "old"


def test_files_that_no_run_wrote_are_never_removed(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years")
    with (
        pytest.raises(OutputRefused, match="no run wrote"),
        output_folder(tmp_path, replace=True),
    ):
        pass
    assert (tmp_path / "thesis.tex").exists()


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OutputRefused, match="is a file"), output_folder(tmp_path / "run"):
        pass


LIMITED = """
import resource, sys
from pathlib import Path
from experiments.output import OutputRefused, output_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with output_folder(Path(sys.argv[1])) as folder:
        (folder / "result.json").write_text("x" * 100_000)
except OutputRefused as error:
    print(error)
    sys.exit(2)
"""


def test_a_write_that_the_system_stops_is_one_line_and_leaves_nothing(tmp_path):
    """The kernel itself refuses the bytes (a file size limit stands in for a full disk)."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "run"], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "disk full while writing" in done.stdout
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


SLOW = """
import sys, time
from pathlib import Path
from experiments.output import output_folder
with output_folder(Path(sys.argv[1])) as folder:
    (folder / "result.json").write_text("{}")
    print("writing", flush=True)
    time.sleep(600)
"""


def test_kill_9_leaves_nothing_under_the_name_and_the_next_run_sweeps(tmp_path):
    path = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not path.exists()
    assert len(leftovers(path)) == 1
    time.sleep(0.01)
    finished_run(path)
    assert leftovers(path) == []


def test_replacing_a_run_never_removes_what_no_run_wrote(tmp_path):
    path = tmp_path / "run"
    finished_run(path)
    (path / "thesis.tex").write_text("ten years")
    with (
        pytest.raises(OutputRefused, match=r"no run wrote.*thesis\.tex"),
        output_folder(path, replace=True),
    ):
        pass
    assert (path / "thesis.tex").exists()


def test_what_came_meanwhile_stays_and_so_does_the_answer(tmp_path):
    path = tmp_path / "run"
    with (
        pytest.raises(OutputRefused, match="was taken while this ran") as refused,
        output_folder(path) as folder,
    ):
        (folder / "result.json").write_text("mine")
        path.mkdir()
        (path / "result.json").write_text("theirs")
    assert (path / "result.json").read_text() == "theirs"
    aside = tmp_path / f"run-{os.getpid()}"
    assert str(aside) in str(refused.value)
    assert (aside / "result.json").read_text() == "mine"


def test_two_runs_at_once_do_not_share_a_folder(tmp_path):
    alive = tmp_path / f".run.partial-{os.getppid()}"
    alive.mkdir()
    with (
        pytest.raises(OutputRefused, match=f"process {os.getppid()}"),
        output_folder(tmp_path / "run"),
    ):
        pass
    assert leftovers(tmp_path / "run") == [alive.name]


def test_parents_that_were_made_go_again(tmp_path):
    with pytest.raises(KeyError), output_folder(tmp_path / "a" / "b" / "run"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", [".", ".."])
def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch, out):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OutputRefused, match="current folder"), output_folder(Path(out)):
        pass


def test_a_name_with_glob_characters_is_swept_too(tmp_path):
    dead = tmp_path / ".run[1].partial-999999999"
    dead.mkdir()
    finished_run(tmp_path / "run[1]")
    assert not dead.exists()
