"""Search for bytes that make a loader fail otherwise than by saying so: atheris, for a while.

    python tests/fuzz/fuzz.py TARGET --seconds 600

A crash is any exception but the package's own and OSError; a hang is more than 5 s of processor
time; a bomb is more than 1 GiB above what the libraries take. Prints a line of JSON; what was found
lies in tests/fuzz/seeds/TARGET, and the tests run it again from then on. `--all` takes every
target in turn; `--seconds` is of each. `--replay N` needs no atheris: what was found before, and N
changes at random of each file to begin with.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

SEEDS = Path(__file__).parent / "seeds"
HANG, BOMB = 5, 2**30


def main() -> int:
    """Fuzz one target in this process, or every one in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=int)
    options = parser.parse_args()
    if options.replay is not None:
        return _replay(options.replay, options.seed)
    if not options.all:
        return _one(options.target, options.seconds, options.seed)
    from targets import TARGETS

    failed = 0
    for name in TARGETS:
        command = [sys.executable, __file__, name]
        command += ["--seconds", str(options.seconds), "--seed", str(options.seed)]
        failed |= subprocess.run(command).returncode
    return failed


def _one(name: str, seconds: int, seed: int) -> int:
    import atheris

    sys.path.insert(0, str(Path(__file__).parent))
    instrumented: Any = vars(atheris)["instrument_imports"]  # it has no types
    with instrumented(include=["bridge", "mech", "toy", "experiments"]):
        import targets
        from target import digest, guarded

        target = targets.TARGETS[name]
        folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-", dir=_memory()))
        run, seeds = target.make(folder)
        answered = guarded(run)
        for data in seeds:  # what is imported late is instrumented too
            answered(data)
    warnings.simplefilter("ignore")
    held = [found.read_bytes() for found in (SEEDS / name).glob("*")] if SEEDS.is_dir() else []
    soft = _memory_now() + BOMB
    resource.setrlimit(resource.RLIMIT_DATA, (soft, resource.RLIM_INFINITY))
    signal.signal(signal.SIGPROF, _hung)
    said = {"target": name, "seconds": 0.0, "runs": 0, "found": 0, "slowest": 0.0}
    seen: set[str] = set()
    begun = time.monotonic()

    def test(data: bytes) -> None:
        started = time.monotonic()
        if started - begun > seconds:
            _finish(said, started - begun, folder)
        said["runs"] += 1
        busy = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, HANG)
        try:
            answered(data)
        except BaseException as error:
            where = _where(error)
            if where not in seen:
                seen.add(where)
                said["found"] += 1
                place = SEEDS / name / digest(data)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
                sys.stderr.write(f"{name} {place.name}: {type(error).__name__}: {error} {where}\n")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            said["slowest"] = max(said["slowest"], round(time.process_time() - busy, 3))

    def mutate(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        changed = target.mutate(data, rng) if rng.random() < 0.7 else atheris.Mutate(data, most)
        return changed[:most]

    corpus = folder / "corpus"
    corpus.mkdir()
    for data in [*seeds, *held]:
        (corpus / digest(data)).write_bytes(data)
    longest = 4 * max(map(len, [*seeds, *held]))
    flags = [f"-seed={seed}", f"-max_len={longest}", "-verbosity=0", "-rss_limit_mb=0"]
    atheris.Setup([name, str(corpus), *flags], test, custom_mutator=mutate)
    atheris.Fuzz()
    return 1


def _replay(changes: int, seed: int) -> int:
    import targets
    from target import guarded

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _hung)
    said: dict = {"runs": 0, "wrong": {}}
    for name, target in targets.TARGETS.items():
        with tempfile.TemporaryDirectory(dir=_memory()) as made:
            run, seeds = target.make(Path(made))
            answered, rng = guarded(run), random.Random(f"{name} {seed}")
            held = [file.read_bytes() for file in sorted((SEEDS / name).glob("*"))]
            changed = (target.mutate(seeds[i % len(seeds)], rng) for i in range(changes))
            for data in (*seeds, *held, *changed):
                said["runs"] += 1
                signal.setitimer(signal.ITIMER_PROF, HANG)
                try:
                    answered(data)
                except (Exception, Hung) as error:
                    said["wrong"].setdefault(name, f"{_where(error)}: {error}; {data!r}"[:500])
                finally:
                    signal.setitimer(signal.ITIMER_PROF, 0)
    sys.stdout.write(json.dumps(said) + "\n")
    return int(bool(said["wrong"]))


class Hung(BaseException):
    """No Exception, or what a loader catches of its own libraries would hide it."""


def _hung(*_: object) -> None:
    raise Hung(f"more than {HANG} s")


def _finish(said: dict, seconds: float, folder: Path) -> None:
    import shutil

    said["seconds"] = round(seconds, 1)
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(int(said["found"] > 0))


def _where(error: BaseException) -> str:
    """The last line of ours that it passed, so that one fault is told once."""
    at, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if any(f"/{part}/" in file for part in ("bridge", "mech", "toy", "experiments")):
            at = f"{'/'.join(Path(file).parts[-2:])}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {at}"


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _memory_now() -> int:
    status = Path("/proc/self/status").read_text()
    row = next(line for line in status.splitlines() if line.startswith("VmData"))
    return int(row.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
