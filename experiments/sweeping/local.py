"""Processes of this machine: each answers one job after the other; a dead one is replaced."""

import contextlib
import json
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

_SPAWN = multiprocessing.get_context("spawn")  # no thread or device handle is inherited


class Local:
    """An engine: `slots` jobs at a time in as many processes, their words in the file `log`."""

    def __init__(self, slots: int, retries: int, log: Path) -> None:
        self.slots, self._retries, self._log = slots, retries, log

    def outcomes(self, jobs: Sequence[str]) -> Iterator[tuple[int, str]]:
        """The index of a job and its outcome (see `work.answered`), as they come.

        A job whose worker dies is asked again, `retries` times. Whoever closes this iterator,
        or leaves it by an exception, ends the workers; they end too when this process is killed.
        """
        left = deque((index, 0) for index in range(len(jobs)))
        workers: list[_Worker] = []
        try:
            while left or any(worker.has for worker in workers):
                while left and len(workers) < self.slots:
                    workers.append(_Worker(self._log))
                for worker in workers:
                    if left and not worker.has:
                        worker.ask(*(left.popleft()), jobs)
                for worker in _ready(workers):
                    index, attempt = worker.has or (0, 0)
                    outcome = worker.said()
                    if outcome is not None:
                        yield index, outcome
                        continue
                    workers.remove(worker)
                    if attempt < self._retries:
                        left.appendleft((index, attempt + 1))
                    else:
                        yield index, died(worker.ended(), attempt + 1)
        finally:
            for worker in workers:
                worker.end()


def died(how: str, times: int) -> str:
    """The outcome of a job that no worker survived."""
    often = "" if times == 1 else f", {times} times"
    return json.dumps({"failed": f"the worker died ({how}){often}: is the memory enough?"})


class _Worker:
    """A process, and the job that it has: index and how often that was tried before."""

    def __init__(self, log: Path) -> None:
        self.connection, its = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(its, str(log)), daemon=True)
        self._process.start()
        its.close()
        self.has: tuple[int, int] | None = None

    def ask(self, index: int, attempt: int, jobs: Sequence[str]) -> None:
        self.has = index, attempt
        with contextlib.suppress(OSError):  # dead: `said` finds out
            self.connection.send_bytes(jobs[index].encode())

    def said(self) -> str | None:
        """The outcome, or None where the process is dead."""
        try:
            outcome = self.connection.recv_bytes().decode()
        except (EOFError, OSError):
            return None
        self.has = None
        return outcome

    def ended(self) -> str:
        self.connection.close()
        self._process.join(10)
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _ready(workers: Sequence[_Worker]) -> list[_Worker]:
    busy: dict[Any, _Worker] = {w.connection: w for w in workers if w.has}
    return [busy[connection] for connection in wait(list(busy))]


def _serve(connection: Connection, log: str) -> None:
    """What a process does until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the driver decides
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(out, 1)
    os.dup2(out, 2)
    from experiments.sweeping.work import answered

    while True:
        try:
            job = connection.recv_bytes().decode()
        except (EOFError, OSError):
            return
        connection.send_bytes(answered(job).encode())


def _end_with_the_driver() -> None:
    """A driver that is killed closes nothing in time: without this its workers would live on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
