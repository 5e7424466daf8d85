"""Loaders answer damage with a line of their own: what the fuzzer found, and changes at random.

Without atheris, which `tests/fuzz/fuzz.py` needs; `CTR_FUZZ=20000` changes that many files.
"""

import os
import random
import signal
from pathlib import Path

import pytest
import targets

from mech.errors import BadInput

SEEDS = Path(__file__).parent / "seeds"
CHANGES = int(os.environ.get("CTR_FUZZ", "150"))


def hung(*_: object) -> None:
    raise AssertionError("more than 5 s of processor time")


@pytest.fixture
def limited():
    before = signal.signal(signal.SIGPROF, hung)
    yield lambda seconds: signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


@pytest.mark.filterwarnings("ignore")  # libraries warn of what the file says
@pytest.mark.parametrize("name", targets.TARGETS)
def test_damage_is_answered_by_the_loader_itself(name, limited, tmp_path, monkeypatch):
    monkeypatch.setenv("CTR_CACHE", str(tmp_path / "cache"))
    target = targets.TARGETS[name]
    run, seeds = target.make(tmp_path)
    guarded = targets.guarded(run)
    held = [file.read_bytes() for file in sorted((SEEDS / name).glob("*"))]
    rng = random.Random(name)
    for data in [*seeds, *held]:
        limited(5)
        guarded(data)
    for number in range(CHANGES):
        data = target.mutate(seeds[number % len(seeds)], rng)
        limited(5)
        guarded(data)


@pytest.mark.parametrize("name", ["shards", "manifest", "plan", "weights", "training"])
def test_a_file_that_is_whole_is_read(name, tmp_path):
    """The first seed goes through: what refuses everything would pass above."""
    run, seeds = targets.TARGETS[name].make(tmp_path)
    run(seeds[0])
    with pytest.raises(targets.allowed()) if name != "shards" else pytest.MonkeyPatch.context():
        run(seeds[0][: len(seeds[0]) // 2])


def test_anything_else_goes_through():
    def faulty(data: bytes) -> None:
        raise BadInput("its own") if data else KeyError("a fault")

    guarded = targets.guarded(faulty)
    guarded(b"x")
    with pytest.raises(KeyError):
        guarded(b"")
