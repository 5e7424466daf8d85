"""Loaders answer damage with a line of their own: what the fuzzer found, and changes at random."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import target
import targets

from mech.errors import BadInput

CHANGES = int(os.environ.get("CTR_FUZZ", "150"))
"""Of each file to begin with; `tests/fuzz/fuzz.py` searches further, with atheris."""


def test_damage_is_answered_by_the_loader_itself(measured):
    """In a process of its own, because the types that tests check would answer first here."""
    script = Path(targets.__file__).with_name("fuzz.py")
    done = subprocess.run(
        [sys.executable, script, "--replay", str(CHANGES)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["wrong"] == {}
    assert said["runs"] > CHANGES * len(targets.TARGETS)
    assert done.returncode == 0
    measured("damaged files that a loader did not answer", f"0 of {said['runs']}", "0")


@pytest.mark.parametrize("name", ["adapter", "manifest", "plan", "weights", "recipe"])
def test_a_file_that_is_whole_is_read(name, tmp_path):
    """What refuses everything would pass above."""
    run, seeds = targets.TARGETS[name].make(tmp_path)
    run(seeds[0])
    with pytest.raises(target.allowed()):
        run(seeds[0][: len(seeds[0]) // 2])


def test_anything_else_goes_through():
    def faulty(data: bytes) -> None:
        raise BadInput("its own") if data else KeyError("a fault")

    guarded = target.guarded(faulty)
    guarded(b"x")
    with pytest.raises(KeyError):
        guarded(b"")
