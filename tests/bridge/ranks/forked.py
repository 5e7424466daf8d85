"""Ranks that are forked from one process: what they import takes ten times as long as their work.

`python forked.py FOLDER SIZES` runs `worker.py` alone (FOLDER/one) and as four ranks (FOLDER/four).
Then two ranks compress with shards: undisturbed (FOLDER/whole); and in FOLDER/killed, where
rank 1 kills itself in the second block, and two others go on. Prints lines of JSON.
"""

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import worker

from bridge.compress import compress
from bridge.methods.oats import OATS
from bridge.rank_shards import RankShards
from bridge.ranks import RankGone
from bridge.shards import Shards
from experiments.ranks.joined import MEETING, joined
from experiments.ranks.rank import DIE_WITH_PARENT

LOST = 3
"""How a rank ends that hears of another one's death."""


def group(meeting: Path, size: int, task: Callable[[], None]) -> list[int]:
    """The exit codes of so many ranks, or of one process without any; -9: killed."""
    names = [{"RANK": str(rank), "WORLD_SIZE": str(size)} for rank in range(size)]
    common = {MEETING: str(meeting), "GLOO_SOCKET_IFNAME": "lo"}
    pids = [_forked(task, common | name if size > 1 else {}) for name in names]
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def _forked(task: Callable[[], None], environment: dict[str, str]) -> int:
    if pid := os.fork():
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        os.environ |= environment
        task()
        code = 0
    except RankGone:
        code = LOST
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def keep(folder: Path, sizes: dict[str, int], *, die: bool) -> None:
    """OATS, its blocks kept in the folder; with `die` rank 1 goes when it has done the second."""
    torch.set_num_threads(1)
    made, batches = worker.model(layers=sizes["layers"]), worker.text(sizes["batches"])

    def advance(name: str) -> None:
        if die and os.environ["RANK"] == "1" and name.startswith("layers.1."):
            os.kill(os.getpid(), signal.SIGKILL)

    with joined("cpu") as ranks:
        shards = RankShards(Shards(folder), ranks)
        method = OATS(iterations=10)
        compress(made, method, batches, shards=shards, ranks=ranks, advance=advance)


def main(folder: Path, sizes: dict[str, int]) -> None:
    sizes = worker.SIZES | sizes
    said: dict[str, Any] = {
        name: group(folder / f"meeting-{name}", size, lambda: worker.work(folder / name, sizes))  # noqa: B023
        for name, size in (("one", 1), ("four", 4))
    }
    for name, kept, die in (
        ("whole", "whole", False), ("killed", "killed", True), ("again", "killed", False)
    ):  # fmt: skip
        meeting = folder / f"meeting-{name}"
        said[name] = group(meeting, 2, lambda: keep(folder / kept, sizes, die=die))  # noqa: B023
        shards = sorted((folder / kept).glob("block-*.safetensors"))
        said[f"{name} keeps"] = [[file.name, file.stat().st_mtime_ns] for file in shards]
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
