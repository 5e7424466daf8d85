"""`ctr sweep`: any experiment over a grid; what is answered stays answered."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from experiments import serial, store
from experiments.presets import Preset
from experiments.progress import Progress
from experiments.settings import BadOption, within
from experiments.sweeping import ahead, folder, kept, plan, slurm
from experiments.sweeping.local import Local
from experiments.sweeping.plan import Plan

LOG = "workers.log"
INTERRUPTED = 130


@dataclass(frozen=True)
class Config:
    """Which experiment, over which grid, where and how."""

    experiment: tyro.conf.Positional[str] = ""
    """A name of ctr --help, as low-rank-figure-2; or a module with Config and run, as my.module."""
    grid: tuple[str, ...] = ()
    """OPTION=VALUE,VALUE for each axis, whole numbers as 0..9; several grids are united."""
    grid_file: Path | None = None
    """Grids from a .toml or .json file: `grid` is a table of OPTION = [VALUES], or several."""
    preset: Preset | Literal[""] = ""
    """smallest, laptop or paper, where the experiment has them; the grid changes its options."""
    out: Path = Path("out/sweep")
    """Folder for rows.csv and rows.json; the runs are in the run store."""
    engine: Literal["local", "ray", "slurm"] = "local"
    """local: processes here. ray: a Ray cluster. slurm: write a job array, to be submitted."""
    jobs: int = 0
    """local: processes, slurm: nodes. Default: one a core (over --threads)."""
    threads: int = 1
    """Of each run; a number's last bits depend on it, so it is a part of the key."""
    address: str = "local"
    """ray: HOST:PORT of its head node, auto: the cluster that runs here, local: start one."""
    num_gpus: float = 0.0
    """ray: GPUs of each run; 0.5 packs two on one."""
    retries: int = 3
    """How often a run whose worker or node died is asked again."""
    part: str = ""
    """K/N: only every Nth run from the Kth, into a run store of its own in --out: for a node that
    shares nothing but the folder. A sweep without --part then takes the answers over."""
    hours: float = 1.0
    """A sweep that is forecast to take longer is asked only with --yes."""
    yes: bool = False
    """Whatever it takes."""
    show: bool = False
    """Only what is answered so far."""


def main(config: Config) -> int:
    """Ask what is not answered yet; exit code 1 where a run failed, 130 after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    within("threads", config.threads, 1)
    within("jobs", config.jobs, 0)
    within("retries", config.retries, 0)
    within("num-gpus", config.num_gpus, 0)
    if config.engine != "ray" and (config.num_gpus or config.address != "local"):
        raise BadOption("--num-gpus, --address: only with --engine ray")
    if config.show and not config.experiment:
        return folder.show(config.out)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(config.threads)  # workers inherit it
    found = plan.planned(
        config.experiment, config.preset, config.grid, config.grid_file, config.threads
    )
    if config.show:
        folder.own(config.out, found)
        folder.write(config.out, found, store.store_path(), Progress(sys.stderr))
        return folder.show(config.out)
    folder.claim(config.out, found)
    if config.engine == "slurm":
        return slurm.write(config.out, config.jobs, sys.argv[1:])
    return _ask(config, found)


def _ask(config: Config, found: Plan) -> int:
    path, chosen = _part(config)
    hashes = [job.hash for job in found.jobs]
    if not config.part:  # a part of another node may be open there
        _adopt(config.out, path, hashes)
    answered = kept.known(path, hashes)
    mine = range(len(hashes))[chosen]
    left = [i for i in mine if hashes[i] not in answered]
    progress = Progress(sys.stderr)
    progress.say(f"{len(mine)} runs: {len(mine) - len(left)} answered before, {len(left)} to ask")
    failed: dict[int, dict[str, str]] = {}
    try:
        if left:
            _run(config, found, left, path, failed, progress)
    except KeyboardInterrupt:
        progress.say("interrupted; what was answered is kept, the same command goes on")
        if not config.part:
            folder.write(config.out, found, path, progress)
        return INTERRUPTED
    if not config.part:
        folder.write(config.out, found, path, progress)
    told = [{"point": found.points[i], **failed[i]} for i in sorted(failed)]
    failures = config.out / (f"{path.stem}-{folder.FAILED}" if config.part else folder.FAILED)
    folder.whole(failures, serial.dumps(told))
    for i in sorted(failed):
        progress.say(f"failed: {found.told(i)}: {failed[i]['failed']}")
    if failed:
        progress.say(f"{len(failed)} of {len(left)} failed ({failures} says where)")
    return 1 if failed else 0


def _run(
    config: Config,
    found: Plan,
    left: Sequence[int],
    path: Path,
    failed: dict[int, dict[str, str]],
    progress: Progress,
) -> None:
    """Ask the jobs of these indices; every answer is in the store before the next is awaited."""
    measured = ahead.measured(path, found)
    if measured:  # otherwise from this sweep's first runs
        ahead.check(ahead.told(found, left, measured, _slots(config)), config, progress)
    engine = _engine(config, len(left))
    order = left if measured else ahead.ends_first(left)
    jobs = [json.dumps(found.jobs[i]._asdict()) for i in order]
    seconds: list[float] = []
    with (
        kept.keeping(path) as keep,
        contextlib.closing(engine.outcomes(jobs)) as outcomes,
        progress.task("sweep", len(left)) as advance,
    ):
        for number, outcome in outcomes:
            index, said = order[number], json.loads(outcome)
            if "row" in said:
                row = said["row"] | {"out": str(config.out.absolute())}
                keep(found.jobs[index].hash, row)
                seconds.append(row["wall_seconds"])
            else:
                failed[index] = said
            advance(found.told(index))
            if not measured and seconds:  # once, when the first is there
                measured = ahead.of_first(found, seconds)
                rest = len(left) - len(seconds) - len(failed)
                if rest:
                    rest_of = order[len(order) - rest :]
                    forecast = ahead.told(found, rest_of, measured, engine.slots)
                    ahead.check(forecast, config, progress)


def _engine(config: Config, runs: int) -> Any:
    if config.engine == "ray":
        from experiments.sweeping.rayed import Rayed

        return Rayed(config.address, config.threads, config.num_gpus, config.retries)
    return Local(min(_slots(config), runs), config.retries, config.out / LOG)


def _slots(config: Config) -> int:
    return config.jobs or max(1, len(os.sched_getaffinity(0)) // config.threads)


def _part(config: Config) -> tuple[Path, slice]:
    """The run store that answers go to, and which runs are this process' own."""
    if not config.part:
        return store.store_path(), slice(None)
    which, _, of = config.part.partition("/")
    if not (which.isdigit() and of.isdigit() and 1 <= int(which) <= int(of)):
        raise BadOption(f"--part {config.part}: give K/N with K from 1 to N, as 3/8")
    return config.out / f"part-{which}-of-{of}.sqlite", slice(int(which) - 1, None, int(of))


def _adopt(out: Path, path: Path, hashes: Sequence[str]) -> None:
    """Take over what parts of the sweep answered, on whatever node."""
    for other in sorted(out.glob("part-*-of-*.sqlite")):
        answered = kept.known(path, hashes)
        missing = [key for key in hashes if key not in answered]
        if missing and other != path:
            kept.adopt(path, other, missing)
