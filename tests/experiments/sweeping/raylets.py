"""Acceptance: a sweep on two nodes of Ray, one of which is killed, finds what a serial one finds.

    python tests/experiments/sweeping/raylets.py --runs 60

Both nodes are raylets of this machine. Prints one line of JSON and exits with 1 where a row
differs, a run is lost, the killed node answered nothing before, or the overhead is too large.
"""

import argparse
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
CTR = [sys.executable, "-c", "from experiments.cli import main; main()"]
OVERHEAD = 0.3  # seconds a run, beside the experiment itself
METHODS = ("magnitude", "wanda", "sparsegpt", "oats")


def models(folder: Path, runs: int) -> list[str]:
    """The words of a sweep of a real experiment, on a tiny random model: `runs` points."""
    from tiny import ENGLISH, random_text, tiny_llama

    tiny_llama(folder / "model", ENGLISH, room=80)
    random_text(folder / "text", 1)
    shares = ",".join(f"{0.3 + 0.6 * i / (runs // 4):.3f}" for i in range(runs // 4))
    grid = f"model={folder / 'model'} text={folder / 'text'} methods={','.join(METHODS)}"
    grid += f" sparsities={shares} select=* blocks=0"
    return ["low-rank-figure-2", "--preset", "smallest", "--grid", grid]


def nothing(runs: int, pause: float) -> list[str]:
    """The words of a sweep that only waits."""
    return ["sweeping.nothing", "--grid", f"seed=0..{runs - 1} pause={pause}"]


def ask(folder: Path, name: str, words: list[str], *options: str) -> subprocess.Popen[str]:
    """Start `ctr sweep` with a run store and an output folder of its own."""
    given = os.environ | {
        "CTR_STORE": str(folder / f"{name}.sqlite"),
        "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE.parents[2]}",
    }
    command = [*CTR, "sweep", *words, "--out", str(folder / name), "--yes", *options]
    nowhere, pipe = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen(command, env=given, text=True, stdout=nowhere, stderr=pipe)


def seconds(store: Path) -> list[float]:
    """The wall times of the runs in the store so far."""
    if not store.exists():
        return []
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=30) as connection:
            return [row[0] for row in connection.execute("SELECT wall_seconds FROM runs")]
    except sqlite3.OperationalError:  # made, and still empty
        return []


def running(raylet: int) -> int:
    """How many runs the workers of a raylet are busy with."""
    import psutil

    names = []
    for worker in psutil.Process(raylet).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            names.append(" ".join(worker.cmdline()))
    return sum("ray::answered" in name for name in names)


def main() -> int:
    """Run both sweeps, kill a raylet in the middle of the second, compare byte for byte."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--nothing", type=float, help="only wait so long in each run")
    asked = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as made:
        folder, told = Path(made), dict[str, Any](runs=asked.runs)
        if asked.nothing is None:
            words = models(folder, asked.runs)
        else:
            words = nothing(asked.runs, asked.nothing)
        clock = time.monotonic()
        serial = ask(folder, "serial", words, "--jobs", "1")
        _, said = serial.communicate()
        told |= {"serial_seconds": round(time.monotonic() - clock, 1)}
        told |= {"serial_work": round(sum(seconds(folder / "serial.sqlite")), 1)}
        if serial.returncode:
            sys.exit(said)

        head = {"num_cpus": 1, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        other = cluster.add_node(num_cpus=1)
        clock = time.monotonic()
        ray = ask(folder, "ray", words, "--engine", "ray", "--address", str(cluster.address))
        try:
            while ray.poll() is None and len(seconds(folder / "ray.sqlite")) < asked.runs // 2:
                time.sleep(0.05)
            victim = other.all_processes["raylet"][0].process.pid
            while ray.poll() is None and not running(victim):  # in the middle of a run of its own
                time.sleep(0.01)
            before = seconds(folder / "ray.sqlite")
            told |= {"rows_when_killed": len(before), "running_on_the_killed": running(victim)}
            os.kill(victim, signal.SIGKILL)
            _, said = ray.communicate(timeout=1200)
        finally:
            ray.kill()
            cluster.shutdown()
        took, work = time.monotonic() - clock, seconds(folder / "ray.sqlite")
        told |= {"ray_seconds": round(took, 1), "ray_work": round(sum(work), 1), "rows": len(work)}
        # Two processors until the kill, one after it.
        ideal = sum(before) / 2 + sum(work[len(before) :])
        over = {"serial": told["serial_seconds"] - told["serial_work"], "ray": took - ideal}
        told |= {f"{k}_overhead_a_run": round(v / asked.runs, 3) for k, v in over.items()}
        same = {
            name: (folder / "serial" / name).read_bytes() == (folder / "ray" / name).read_bytes()
            for name in ("rows.csv", "rows.json")
        }
        told |= {"same": same, "bytes": (folder / "serial" / "rows.json").stat().st_size}
    sys.stdout.write(json.dumps(told) + "\n")
    if ray.returncode:
        sys.stderr.write(said)
    fine = all(same.values()) and len(work) == asked.runs and not ray.returncode
    fine &= 0 < told["rows_when_killed"] < asked.runs and told["running_on_the_killed"] > 0
    # The start of the processes is a part of it, and few runs have little to divide it by.
    cheap = all(told[f"{k}_overhead_a_run"] < OVERHEAD for k in over) or asked.runs < 60
    return 0 if fine and cheap else 1


if __name__ == "__main__":
    sys.exit(main())
