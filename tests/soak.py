"""Soak: short runs while drivers and workers are killed at random and the disk fills up.

    python tests/soak.py --runs 200            short runs of tests/faults/soaked.py
    python tests/soak.py --runs 200 --models   a figure's experiment on a tiny model: takes longer

One sweep is left alone. The same one, on a small disk of its own (a tmpfs where this may be
mounted, else a limit on the size of files), loses its driver or a worker to SIGKILL, or its disk
is filled to the last byte, after every few rows; then the same command is given again. Prints a
line of JSON; the exit status is 1 where a row is lost, doubled, or differs in any bit, where the
run store is damaged, where something half written is left, where a full disk was not told in one
line, or where workers outlive their driver.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "experiments"), str(HERE / "experiments" / "sweeping")]
CTR = [sys.executable, "-c", "from experiments.cli import main; main()"]
FAULTS = ("driver", "worker", "disk")
SMALL_DISK = 16 * 2**20  # and for models, whose compressed blocks are kept there too, four times


class Sweep:
    """`ctr sweep` on a store and folder of its own, as often as it has to be asked."""

    def __init__(self, folder: Path, words: list[str], jobs: int) -> None:
        self.folder, self.store, self.out = folder, folder / "runs.sqlite", folder / "sweep"
        self._command = [*CTR, "sweep", *words, "--out", str(self.out), "--yes"]
        self._command += ["--jobs", str(jobs)]
        self.log = folder.parent / f"{folder.name}.log"

    def start(self, limit: int | None = None) -> subprocess.Popen[bytes]:
        """Ask. `limit`: bytes that a file may grow to, for a disk that is full."""
        given = os.environ | {"CTR_STORE": str(self.store), "PYTHONPATH": _path()}
        given |= {"CTR_CACHE": str(self.folder / "cache")}  # nothing is found ready
        self.log.write_bytes(b"")
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command, env=given, stdout=subprocess.DEVNULL, stderr=log,
                preexec_fn=None if limit is None else lambda: resource.setrlimit(
                    resource.RLIMIT_FSIZE, (limit, limit)),
            )  # fmt: skip

    def rows(self) -> int:
        """How many runs are in the store."""
        if not self.store.exists():
            return 0
        try:
            with contextlib.closing(sqlite3.connect(self.store, timeout=30)) as connection:
                return connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0]
        except sqlite3.OperationalError:  # made, and still empty; or its disk is full
            return 0

    def sums(self) -> dict[str, str]:
        """SHA-256 of every stored answer, and of what the sweep wrote."""
        found = {}
        with contextlib.closing(sqlite3.connect(self.store)) as connection:
            for config, result in connection.execute("SELECT config, result FROM runs"):
                key = hashlib.sha256(config.encode()).hexdigest()
                found[key] = hashlib.sha256(result.encode()).hexdigest()
            found["integrity"] = connection.execute("PRAGMA integrity_check").fetchone()[0]
        for name in ("rows.csv", "rows.json", "sweep.json"):
            found[name] = hashlib.sha256((self.out / name).read_bytes()).hexdigest()
        return found


def _path() -> str:
    return os.pathsep.join([str(HERE / "experiments"), str(HERE), str(HERE.parent)])


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """`folder` as a disk of `size` bytes; False where it may not be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def fill(file: Path) -> None:
    """To the last byte of the disk."""
    with file.open("wb", buffering=0) as handle, contextlib.suppress(OSError):
        for size in (2**16, 2**10, 1):
            with contextlib.suppress(OSError):
                while handle.write(b"\0" * size):
                    pass


def ended(process: subprocess.Popen[bytes], seconds: float = 120) -> int | None:
    """The exit code, or None where it still runs."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that answer, once they have begun to."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = []
    for child in below:
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def disturbed(sweep: Sweep, runs: int, rng: random.Random, mounted: bool) -> dict[str, Any]:
    """Faults in turn, each after a few more rows, until a start comes to its end."""
    done: Counter[str] = Counter()
    wrong: list[str] = []
    process, starts = sweep.start(), 1
    while True:
        kind = FAULTS[sum(done.values()) % 3]
        target = sweep.rows() + rng.randint(2, 8)
        while process.poll() is None and sweep.rows() < min(target, runs):
            time.sleep(0.02)
        time.sleep(rng.random() / 4)
        if process.poll() is not None:
            break
        if kind == "worker":
            with contextlib.suppress(psutil.Error, IndexError):
                rng.choice(workers(process)).kill()
                done[kind] += 1
            continue
        if kind == "driver":
            left = workers(process)
            process.kill()
            process.wait()
            done[kind] += 1
            if psutil.wait_procs(left, timeout=30)[1]:
                wrong.append("workers outlive their driver")
        elif mounted:
            fill(sweep.folder / "filler")
            code = ended(process)
            (sweep.folder / "filler").unlink()
            _told(code, sweep.log, wrong)
            done[kind] += code != 0
            if code is None:
                process.kill()
            elif code == 0:
                break
        else:
            process.kill()
            process.wait()
            full = sweep.start(limit=sweep.store.stat().st_size)
            starts += 1
            _told(ended(full), sweep.log, wrong)
            done[kind] += 1
        process, starts = sweep.start(), starts + 1
    if process.returncode:
        wrong.append(f"exit code {process.returncode}: {sweep.log.read_text()[-500:]}")
    return {"starts": starts, "kills": dict(done), "wrong": wrong}


def _told(code: int | None, log: Path, wrong: list[str]) -> None:
    """A full disk ends a sweep in one line, in bounded time, and not by a fault of ours."""
    said = log.read_text(errors="replace")
    if code is None:
        wrong.append("a full disk left it waiting")
    elif code == 0:  # it had nothing left to write
        return
    elif "Traceback" in said or code < 0 or "ctr: error: " not in said:
        wrong.append(f"a full disk: exit code {code}, {said[-400:]!r}")


def main() -> int:
    """Soak, and say what was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", action="store_true")
    asked = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        words = ["faults.soaked", "--grid", f"seed=0..{asked.runs - 1}"]
        if asked.models:
            from raylets import models

            words = models(folder, asked.runs)
        begun = time.monotonic()
        (folder / "alone").mkdir()
        alone = Sweep(folder / "alone", words, asked.jobs)
        if code := ended(alone.start(), 36_000):
            sys.exit(f"exit code {code}: {alone.log.read_text()[-2000:]}")
        usual = time.monotonic() - begun
        size = 4 * SMALL_DISK if asked.models else SMALL_DISK
        with small_disk(folder / "small", size) as mounted:
            sweep = Sweep(folder / "small", words, asked.jobs)
            said = disturbed(sweep, asked.runs, random.Random(asked.seed), mounted)
            expected, found = alone.sums(), sweep.sums()
            left = [p.name for p in sweep.folder.rglob("*") if "partial" in p.name]
            doubled = sweep.rows() - asked.runs
        told = {
            "runs": asked.runs, "seconds": round(time.monotonic() - begun, 1),
            "undisturbed_seconds": round(usual, 1), "disk": "tmpfs" if mounted else "RLIMIT_FSIZE",
            "lost": len(expected.keys() - found.keys()),
            "differing": sum(found.get(key) != value for key, value in expected.items()),
            "doubled": doubled, "half_written": len(left), "compared": len(expected), **said,
        }  # fmt: skip
    sys.stdout.write(json.dumps(told) + "\n")
    bad = told["lost"] or told["differing"] or doubled or left or said["wrong"]
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
