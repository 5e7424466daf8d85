"""One question asked by several processes: helpers that are started here, or torchrun's ranks.

Rank 0 is the process that was asked; it prints and writes. The others run the same `run` on the
same Config, say nothing, and end with it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.progress import Progress
from experiments.ranks.helpers import led
from experiments.ranks.joined import joined
from experiments.settings import BadOption

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from bridge.ranks import TorchRanks


@contextmanager
def ranks(
    module: str, config: Any, count: int, progress: Progress, device: str = "cpu"
) -> Iterator["TorchRanks | None"]:
    """The ranks that answer this question together; None where one process does.

    `module` and `config` are what a helper is given to run. Raises BadOption where `count` is
    none, or not torchrun's; BadInput, one line, where a rank is lost.
    """
    if count < 1:
        raise BadOption(f"--ranks {count}: give 1 or more")
    size = torchrun()
    if size > 1:
        if count not in (1, size):
            raise BadOption(f"--ranks {count}: torchrun started {size}; leave the option out")
        with joined(place(device)) as found:
            yield found
    elif count == 1:
        yield None
    else:
        with led(module, config, count, place(device), progress) as found:
            yield found


def torchrun() -> int:
    """How many ranks the environment names; 1 where it names none."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def helping(name: str, config: Any) -> bool:
    """Whether this process is a rank other than 0, which publishes nothing.

    Raises BadOption where torchrun started several for a question that is not shared.
    """
    if torchrun() > 1 and not hasattr(config, "ranks"):
        raise BadOption(f"ctr {name} is not shared over ranks: start it without torchrun")
    return torchrun() > 1 and os.environ["RANK"] != "0"


def quiet() -> Progress:
    """What another rank than 0 reports to."""
    return Progress(Path(os.devnull).open("w"))


def place(device: str) -> str:
    """Where this rank's model runs: of "cuda" its own one of the machine's devices."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


def tell(ranks: "TorchRanks", progress: Progress) -> None:
    """A line a rank: its wall time, its waiting, the bytes through it, its linears."""
    for one in ranks.spent():
        progress.say(
            f"rank {one.rank} of {ranks.size}: {one.seconds:.1f} s, {one.waiting:.1f} s of it in "
            f"collectives, {one.bytes / 2**20:.1f} MiB communicated, {one.linears} linears"
        )
