"""The run store: rows survive a kill, two writers do not lose each other's."""

import json
import os
import signal
import subprocess
import sys

from experiments import serial, store

RUN = {
    "started": "2026-01-01T00:00:00+00:00",
    "command": "ctr probe",
    "question": "?",
    "config": {"seed": 3},
    "seed": 3,
    "inputs": {"model": "m", "first_ids": (1, 2)},
    "versions": {"python": "3"},
    "wall_seconds": 1.5,
    "peak_bytes": 10,
    "out": "/nowhere",
    "result": {"x": float("nan")},
}


def test_a_row_comes_back_as_it_went_in(tmp_path):
    path = tmp_path / "runs.sqlite"
    assert store.rows(path) == []
    assert store.add(path, **RUN) == 1
    assert store.add(path, **{**RUN, "seed": None}) == 2
    first, second = store.rows(path)
    assert first.config == {"seed": 3}
    assert first.inputs["first_ids"] == [1, 2]
    assert first.result == {"x": "nan"}
    assert (first.seed, second.seed) == (3, None)
    assert json.loads(serial.dumps(first))["wall_seconds"] == 1.5


def writer(path, count):
    """A process that adds rows and says so after each."""
    code = (
        "import json, sys; from pathlib import Path; from experiments import store\n"
        "run = json.loads(sys.argv[2])\n"
        f"for _ in range({count}): print(store.add(Path(sys.argv[1]), **run), flush=True)"
    )
    run = json.dumps(serial.plain(RUN))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), run], stdout=subprocess.PIPE, text=True
    )


def test_kill_9_loses_no_row_that_was_reported(tmp_path):
    path = tmp_path / "runs.sqlite"
    process = writer(path, 10_000)
    assert process.stdout is not None
    reported = [process.stdout.readline() for _ in range(5)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    found = store.rows(path)
    assert len(found) >= len(reported)
    assert all(row.result == {"x": "nan"} for row in found)


def test_two_writers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "runs.sqlite"
    both = [writer(path, 20), writer(path, 20)]
    for process in both:
        out, _ = process.communicate()
        assert process.returncode == 0
        assert len(out.split()) == 20
    assert [row.id for row in store.rows(path)] == list(range(1, 41))
