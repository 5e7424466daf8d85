"""Ranks that are started here: processes beside this one, their deaths, and what they said."""

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
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.progress import Progress
from experiments.ranks.joined import MEETING, joined

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from bridge.ranks import TorchRanks


class Helper(NamedTuple):
    """A process, its rank, and the file that it says its last line into."""

    process: subprocess.Popen[bytes]
    rank: int
    said: Path


class _Lost(Exception):
    """A helper ended that should not have."""


@contextmanager
def led(
    module: str, config: Any, count: int, device: str, progress: Progress
) -> Iterator["TorchRanks"]:
    """Helpers beside this process, which is rank 0.

    Raises BadInput, the line of the rank that failed first, where one is lost.
    """
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
            with _watched(helpers), joined(device) as found:
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
    root = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    with said.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "experiments.ranks.rank"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
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
    while time.monotonic() < limit and not any(_root(helper, count) for helper in helpers):
        if all(helper.process.poll() is not None for helper in helpers):
            break
        time.sleep(0.05)
    found = [why for helper in helpers if (why := _root(helper, count))]
    return found[0] if found else otherwise


def _root(helper: Helper, count: int) -> str | None:
    """Why this rank failed by itself; None where it did not, or only after another one."""
    code = helper.process.poll()
    if not code:
        return None
    who = f"rank {helper.rank} of {count}"
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
