"""A function of several arguments, in several processes that share the memory of this one."""

import json
import os
import select
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mech.errors import BadInput


def mapped(function: Callable[[Any], float], items: Sequence[Any], processes: int) -> list[float]:
    """[function(item) for item in items]; with more than one process by forks, each of one thread.

    Processes share model and inputs with this one, unwritten, and tell their numbers through
    pipes. One whose parent is gone ends at its next number. Where there is no fork: in turn.
    Raises BadInput where a process ended early.
    """
    processes = min(processes, len(items))
    if processes <= 1 or not hasattr(os, "fork"):
        return [function(item) for item in items]
    found: list[float | None] = [None] * len(items)
    readers, children = {}, []
    for part in range(processes):
        numbers = range(part, len(items), processes)
        read, write = os.pipe()
        child = _fork()
        if child == 0:
            os.close(read)
            _child(function, items, numbers, write)
        os.close(write)
        readers[read] = b""
        children.append(child)
    while readers:
        for read in select.select(list(readers), [], [])[0]:
            data = os.read(read, 65536)
            *lines, rest = (readers[read] + data).split(b"\n")
            for line in lines:
                number, value = json.loads(line)
                found[number] = value
            readers[read] = rest
            if not data:
                os.close(read)
                del readers[read]
    for child in children:
        os.waitpid(child, 0)
    values = [value for value in found if value is not None]
    if len(values) < len(items):
        raise BadInput("a process of the search ended early (out of memory?); use --processes 1")
    return values


def _fork() -> int:
    with warnings.catch_warnings():
        # Threads of this process do not exist in the child, which needs none: it runs tensor
        # products on one thread, writes to a pipe, and leaves without any of Python's endings.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _child(
    function: Callable[[Any], float], items: Sequence[Any], numbers: Sequence[int], write: int
) -> None:
    status = 1
    try:
        torch.set_num_threads(1)
        for number in numbers:
            line = json.dumps([number, float(function(items[number]))]) + "\n"
            os.write(write, line.encode())
        status = 0
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(status)
