"""A sweep: every run once, whatever dies; its rows are those of runs asked one by one."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweeping.raylets import CTR, HERE, seconds
from tiny import random_text, tiny_llama

from experiments import rerun, store
from experiments.settings import BadOption
from experiments.sweeping import command, kept
from experiments.sweeping.command import Config

NOTHING = "sweeping.nothing"


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """A run store of the test's own; threads as they were before; no run that still waits."""
    monkeypatch.setenv("CTR_STORE", str(tmp_path / "runs.sqlite"))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
    for held in tmp_path.glob("hold-*"):
        held.unlink()


def sweep(out: Path, *grid: str, **options: Any) -> int:
    return command.main(replace(Config(NOTHING, grid, out=out, jobs=1), **options))


def runs() -> int:
    return len(store.rows(store.store_path()))


def test_rows_do_not_depend_on_how_it_ran_and_answers_stay(tmp_path, monkeypatch, capsys):
    assert sweep(tmp_path / "a", "seed=0..5 scale=1,0.5", jobs=1) == 0
    assert runs() == 12
    # Elsewhere, so that all is asked again; in two processes.
    monkeypatch.setenv("CTR_STORE", str(tmp_path / "other.sqlite"))
    assert sweep(tmp_path / "b", "seed=0..5 scale=1,0.5", jobs=2) == 0
    assert runs() == 12
    for name in ("rows.csv", "rows.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    lines = (tmp_path / "b" / "rows.csv").read_text().splitlines()
    assert len(lines) == 13
    assert lines[0].startswith("seed,scale,claim,case,mean")
    assert lines[2].startswith("0,0.5,value,,0.0,")
    assert lines[3].startswith(f"1,1.0,value,,{1 / 3!r},")
    # The grid grows: only what is new is asked; what it shares with another grid once.
    assert sweep(tmp_path / "b", "seed=0..6 scale=1", "seed=6,7", jobs=1) == 0
    assert runs() == 12 + 2
    assert len((tmp_path / "b" / "rows.csv").read_text().splitlines()) == 1 + 8
    said = capsys.readouterr()
    assert "8 runs: 6 answered before, 2 to ask" in said.err
    assert command.main(Config(show=True, out=tmp_path / "b")) == 0
    assert "0.333333" in capsys.readouterr().out


def test_what_fails_is_told_at_the_end_and_asked_again(tmp_path, capsys):
    assert sweep(tmp_path / "a", "seed=0..3 refused=2") == 1
    said = capsys.readouterr().err.splitlines()
    assert "failed: seed=2: --seed 2: refused" in said
    assert runs() == 3
    (kept_one,) = json.loads((tmp_path / "a" / "failed.json").read_text())
    assert kept_one["point"] == {"seed": 2, "refused": 2}
    assert "BadOption" in kept_one["traceback"]
    assert sweep(tmp_path / "a", "seed=0..3 refused=2") == 1
    assert "4 runs: 3 answered before, 1 to ask" in capsys.readouterr().err


def test_a_run_whose_worker_dies_is_asked_again_and_not_for_ever(tmp_path, capsys):
    for seed in (1, 3):
        (tmp_path / f"die-{seed}").touch()
    mark = tmp_path / "mark"  # there is none: only its folder is looked at
    assert sweep(tmp_path / "a", f"seed=0..4 fatal={mark}", jobs=2) == 0
    assert runs() == 5
    assert not list(tmp_path.glob("die-*"))
    (tmp_path / "die-5").touch()
    assert sweep(tmp_path / "a", f"seed=0..6 fatal={mark}", retries=0) == 1
    assert "seed=5" in (said := capsys.readouterr().err)
    assert "the worker died (signal 9): is the memory enough?" in said
    assert runs() == 6


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_driver_is_killed_and_the_same_command_goes_on(tmp_path, how, monkeypatch):
    """Two of eight runs are held, so that it cannot have ended before, however busy the machine."""
    path, grid = tmp_path / "runs.sqlite", f"seed=0..7 held={tmp_path / 'mark'}"
    for seed in (5, 6):
        (tmp_path / f"hold-{seed}").touch()
    words = [NOTHING, "--grid", grid, "--out", str(tmp_path / "a"), "--jobs", "2"]
    given = os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE.parents[2]}"}
    # Whoever runs the tests in the background has Ctrl-C ignored, and a child inherits that.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        driver = subprocess.Popen(
            [*CTR, "sweep", *words], env=given, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, ignored)
    while len(seconds(path)) < 3 and driver.poll() is None:
        time.sleep(0.02)
    workers = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
    driver.send_signal(how)
    _, said = driver.communicate(timeout=30)
    assert driver.returncode == (-how if how == signal.SIGKILL else 130)
    assert "Traceback" not in said
    deadline = time.monotonic() + 10
    while any(_lives(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) >= 2
    assert not [worker for worker in workers if _lives(worker)]
    before = runs()
    assert 3 <= before <= 6
    for seed in (5, 6):
        (tmp_path / f"hold-{seed}").unlink()
    assert sweep(tmp_path / "a", grid, jobs=2) == 0
    assert runs() == 8
    monkeypatch.setenv("CTR_STORE", str(tmp_path / "undisturbed.sqlite"))
    assert sweep(tmp_path / "b", grid, jobs=2) == 0
    for name in ("rows.csv", "rows.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def _lives(pid: str) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"spawn_main" in command


def test_a_long_one_is_told_before_it_starts(tmp_path, capsys):
    assert sweep(tmp_path / "a", "seed=0 pause=0.2") == 0
    with pytest.raises(BadOption, match=r"100 runs, forecast .* pass --yes"):
        sweep(tmp_path / "a", "seed=1..100 pause=0.2", hours=0.001)
    assert runs() == 1
    assert sweep(tmp_path / "a", "seed=1,2 pause=0", hours=0, yes=True) == 0
    # Nothing like it was measured before: its first run is, and stays.
    with sqlite3.connect(store.store_path()) as connection:
        connection.execute("DELETE FROM runs")
        connection.execute("DELETE FROM keys")
    with pytest.raises(BadOption, match="pass --yes"):
        sweep(tmp_path / "a", "seed=1..100 pause=0.2", hours=0.001)
    assert runs() == 1


def test_parts_on_other_nodes_are_taken_over(tmp_path):
    for part in ("1/2", "2/2"):
        assert sweep(tmp_path / "a", "seed=0..4", part=part) == 0
    assert runs() == 0
    assert len(store.rows(tmp_path / "a" / "part-1-of-2.sqlite")) == 3
    assert sweep(tmp_path / "a", "seed=0..4", retries=0) == 0
    assert runs() == 5
    assert not list(tmp_path.glob("die-*"))
    for part in ("3/2", "0/1", "x", "1/"):
        with pytest.raises(BadOption, match="--part"):
            sweep(tmp_path / "a", "seed=0..4", part=part)


def test_parts_leave_each_others_files_alone(tmp_path, capsys):
    """Each may run on another node at the same time."""
    (tmp_path / "a").mkdir()
    other = tmp_path / "a" / "part-1-of-2.sqlite"
    (tmp_path / "a" / ".sweep.json.partial-node-1").touch()  # of a node that starts as we do
    assert sweep(tmp_path / "a", "seed=0..3 refused=2", part="1/2") == 1
    other.write_text("not to be opened")
    assert sweep(tmp_path / "a", "seed=0..3 refused=2", part="2/2") == 0
    assert other.read_text() == "not to be opened"
    assert len(json.loads((tmp_path / "a" / "part-1-of-2-failed.json").read_text())) == 1
    assert json.loads((tmp_path / "a" / "part-2-of-2-failed.json").read_text()) == []


def test_a_job_array_asks_its_parts(tmp_path, monkeypatch):
    given = [NOTHING, "--grid", "seed=0..4 scale=1", "--out", str(tmp_path / "a")]
    path = f"{HERE.parent}{os.pathsep}{HERE.parents[2]}"
    monkeypatch.setenv("PYTHONPATH", path)
    ctr = Path(sys.executable).parent / "ctr"
    ask = [str(ctr), "sweep", *given, "--engine", "slurm", "--jobs=2"]
    done = subprocess.run(ask, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    script = tmp_path / "a" / "array.sh"
    assert f"sbatch {script}" in done.stdout
    assert "#SBATCH --job-name=ctr-sweep --array=1-2" in script.read_text()
    node = os.environ | {"SLURM_ARRAY_TASK_ID": "2"}
    done = subprocess.run(["sh", str(script)], env=node, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(store.rows(tmp_path / "a" / "part-2-of-2.sqlite")) == 2


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes").touch()
    for show in (False, True):
        with pytest.raises(BadOption, match="files that no sweep wrote"):
            sweep(tmp_path / "a", "seed=0", show=show)
    assert sweep(tmp_path / "b", "seed=0") == 0
    with pytest.raises(BadOption, match=r"holds a sweep of ctr sweep sweeping\.nothing"):
        command.main(Config("perplexity", ("context=16",), out=tmp_path / "b"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"experiment": "low-rank-figur"}, "did you mean low-rank-figure-"),
        ({"experiment": "no.such.module"}, "no module that Python finds"),
        ({"experiment": "json.decoder"}, "has Config and run"),
        ({"experiment": "perplexity", "preset": "laptop"}, "has none"),
        ({"experiment": "perplexity"}, "--grid is missing"),
        ({"experiment": NOTHING, "grid": ("seed=1",), "num_gpus": 1.0}, "only with --engine ray"),
        ({"experiment": NOTHING, "grid": ("seed=1",), "jobs": -1}, "--jobs -1"),
        ({"experiment": NOTHING, "grid": ("seed=1",), "engine": "slurm"}, "number of nodes"),
        ({"show": True}, "no .*rows.csv"),
    ],
)
def test_what_cannot_be_asked_is_one_line(tmp_path, options, words):
    with pytest.raises(BadOption, match=words):
        command.main(Config(out=tmp_path / "a", **options))
    assert runs() == 0


def test_a_real_experiment_and_its_runs_asked_again(tmp_path, capsys):
    tiny_llama(tmp_path / "model")
    random_text(tmp_path / "text", 1)
    grid = f"model={tmp_path / 'model'} text={tmp_path / 'text'} context=24,32 stride=16 tokens=200"
    assert command.main(Config("perplexity", (grid,), out=tmp_path / "a", jobs=1)) == 0
    first, _ = store.rows(store.store_path())  # the last point: the longest is measured first
    assert first.command.startswith(f"ctr perplexity {tmp_path / 'model'} --text")
    assert first.command.endswith("--context 32 --stride 16 --tokens 200")
    capsys.readouterr()
    assert rerun.main(rerun.Config("1")) == 0
    assert "all the same, bit for bit" in capsys.readouterr().out


def test_a_key_and_its_run_are_kept_together(tmp_path):
    row = {name: "" for name in store.COLUMNS} | {
        name: {} for name in ("config", "inputs", "versions", "result")
    }
    path = tmp_path / "s.sqlite"
    with kept.keeping(path) as keep:
        keep("k", row)
        keep("k", row)
    assert kept.known(path, ["k", "l"]) == {"k": 1}
    with pytest.raises(KeyError), kept.keeping(path) as keep:
        keep("l", {})
    assert kept.known(path, ["l"]) == {}
    assert len(store.rows(path)) == 1


def test_two_sweeps_that_bring_one_answer_at_once_keep_it_once(tmp_path, monkeypatch):
    path, insert = tmp_path / "s.sqlite", store.insert
    row: dict[str, Any] = {name: "" for name in store.COLUMNS}
    with kept.keeping(path):
        pass

    def other() -> None:
        with kept.keeping(path) as keep:
            keep("k", row)

    sweep = threading.Thread(target=other)

    def meanwhile(connection: sqlite3.Connection, run: dict[str, Any]) -> int:
        if sweep.ident is None:  # between our look and our row
            sweep.start()
            sweep.join(0.5)
        return insert(connection, run)

    monkeypatch.setattr(store, "insert", meanwhile)
    with kept.keeping(path) as keep:
        keep("k", row)
    sweep.join()
    assert kept.known(path, ["k"]) == {"k": 1}
