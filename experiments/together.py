"""One question asked by several processes: helpers that are started here, or torchrun's ranks.

Rank 0 is the process that was asked; it prints and writes. The others run the same `run` on the
same Config, say nothing, and end with it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.progress import Progress
from experiments.settings import BadOption

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from bridge.ranks import TorchRanks

MEETING = "CTR_MEETING"
"""The environment's name for where ranks meet: a file here, torchrun's store without it."""
PATIENCE = timedelta(hours=2)
"""A rank that is gone is found at once by its closed connection; this is for a lost machine."""


class Helper(NamedTuple):
    """A process, its rank, and the file that it says its last line into."""

    process: subprocess.Popen[bytes]
    rank: int
    said: Path


class _Lost(Exception):
    """A helper ended that should not have."""


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
        with _joined(device) as found:
            yield found
    elif count == 1:
        yield None
    else:
        with _led(module, config, count, device, progress) as found:
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


@contextmanager
def _joined(device: str) -> Iterator["TorchRanks"]:
    """This process as a rank, until all are done."""
    import torch
    import torch.distributed as dist

    from bridge.ranks import RankGone, TorchRanks
    from mech.refusals import first_line

    meeting = os.environ.get(MEETING)
    where = f"file://{meeting}" if meeting else "env://"
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(place(device))
    try:
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=where,
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        raise RankGone(f"the ranks do not find each other ({first_line(error)})") from error
    try:
        yield TorchRanks(place(device) if cuda else "cpu")
    finally:
        dist.destroy_process_group()


@contextmanager
def _led(
    module: str, config: Any, count: int, device: str, progress: Progress
) -> Iterator["TorchRanks"]:
    """Helpers beside this process, which is rank 0."""
    import torch

    from bridge.ranks import RankGone
    from mech.errors import BadInput

    threads = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:  # else all of them would want all cores
        torch.set_num_threads(max(threads // count, 1))
    with tempfile.TemporaryDirectory(prefix="ctr-ranks-") as folder:
        own = _environment(0, count, Path(folder))
        before = {name: os.environ.get(name) for name in own}
        helpers: list[Helper] = []
        os.environ |= own
        try:
            helpers += [_started(module, config, rank, count, Path(folder))
                        for rank in range(1, count)]  # fmt: skip
            progress.say(f"{count} ranks on this machine, {torch.get_num_threads()} threads each")
            with _watched(helpers), _joined(device) as found:
                yield found
        except (_Lost, RankGone) as error:
            raise BadInput(_why(helpers, count, str(error))) from error
        finally:
            _end(helpers, kill=sys.exc_info()[0] is not None)
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
            torch.set_num_threads(threads)


def _environment(rank: int, count: int, folder: Path) -> dict[str, str]:
    import torch

    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
        MEETING: str(folder / "meeting"),
    }


def _started(module: str, config: Any, rank: int, count: int, folder: Path) -> Helper:
    from experiments import serial

    said = folder / f"rank-{rank}"
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "experiments.rank"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=said.open("wb"),
        env=os.environ | _environment(rank, count, folder) | {"PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C is for rank 0, which ends them
    )
    assert process.stdin is not None
    given = {"module": module, "config": serial.plain(config), "parent": os.getpid()}
    process.stdin.write(json.dumps(given).encode())
    process.stdin.close()
    return Helper(process, rank, said)


@contextmanager
def _watched(helpers: list[Helper]) -> Iterator[None]:
    """Inside, the main thread hears of a helper's death between two steps of its own work."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def heard(*_: Any) -> None:
        if any(helper.process.poll() for helper in helpers):
            raise _Lost("a rank ended")

    before = signal.signal(signal.SIGCHLD, heard)
    try:
        heard()  # one that ended before anybody listened
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _why(helpers: list[Helper], count: int, otherwise: str) -> str:
    """The line of the rank that failed first: others fail because it is gone."""
    limit = time.monotonic() + 15  # after the connection closes the process takes a while to end
    while time.monotonic() < limit and not any(_root(helper) for helper in helpers):
        if all(helper.process.poll() is not None for helper in helpers):
            break
        time.sleep(0.05)
    found = [why for helper in helpers if (why := _root(helper))]
    return f"{found[0].replace('COUNT', str(count))}" if found else otherwise


def _root(helper: Helper) -> str | None:
    """Why this rank failed by itself; None where it did not, or only after another one."""
    code = helper.process.poll()
    if not code:
        return None
    who = f"rank {helper.rank} of COUNT"
    if code < 0:
        name = signal.Signals(-code).name
        return (
            f"{who} was killed ({name}; the system does so where memory runs out): blocks that "
            "are done are kept where --shards says; run the same command again"
        )
    lines = helper.said.read_text(errors="replace").strip().splitlines() or [f"exit code {code}"]
    last = lines[-1].removeprefix("ctr: error: ")
    return None if "another rank is gone" in last else f"{who}: {last}"


def _end(helpers: list[Helper], *, kill: bool) -> None:
    """No process is left behind."""
    for helper in helpers:
        try:
            if not kill:
                helper.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            pass
        helper.process.kill()
        helper.process.wait()
