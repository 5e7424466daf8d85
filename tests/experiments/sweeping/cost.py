"""Acceptance: what a sweep of runs that do nothing costs, at growing numbers of runs.

    python tests/experiments/sweeping/cost.py --runs 1250 2500 5000

Prints one line of JSON: by number of runs the seconds of the whole command, those of processors
in it and of the same command once more, when everything is answered; and milliseconds of processor
for each further run, which a busy machine leaves as they are. Exits with 1 where a further run
costs more than twice as much in the last step as in the first, or 0.3 s.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


def main() -> int:
    """Time the sweeps one after the other, each with a run store of its own."""
    from raylets import OVERHEAD, ask, nothing

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[1250, 2500, 5000])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--engine", default="local")
    asked = parser.parse_args()
    options = ["--engine", asked.engine]
    options += ["--jobs", str(asked.jobs)] if asked.engine == "local" else []
    seconds, busy, again = [], [], []
    with tempfile.TemporaryDirectory() as made:
        for runs in asked.runs:
            for wall, cpu in ((seconds, busy), (again, [])):
                clock, before = time.monotonic(), used()
                words = nothing(runs, 0.0)
                process = ask(Path(made), f"of-{runs}", words, *options)
                _, said = process.communicate()
                if process.returncode:
                    sys.exit(said)
                wall.append(round(time.monotonic() - clock, 1))
                cpu.append(round(used() - before, 2))
            sys.stderr.write(f"{runs} runs: {seconds[-1]} s, {busy[-1]} s of processors\n")
    steps = list(zip(asked.runs, asked.runs[1:], busy, busy[1:], strict=False))
    each = [1000 * (after - before) / (to - of) for of, to, before, after in steps]
    told = {"engine": asked.engine, "runs": asked.runs, "seconds": seconds}
    told |= {"cpu_seconds": busy}
    told |= {"again_seconds": again, "cpu_ms_a_further_run": [round(e, 2) for e in each]}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if each[-1] < 2 * each[0] and each[-1] < 1000 * OVERHEAD else 1


def used() -> float:
    """Seconds of processor time of all processes that were started here and have ended."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


if __name__ == "__main__":
    sys.exit(main())
