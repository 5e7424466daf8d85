"""How far along, and how long still: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

Advance = Callable[[str], None]
PAUSE = 10.0  # seconds between two plain lines


def paper() -> Console:
    """Where answers are printed: as wide as the terminal, and wide enough for a table elsewhere.

    Text is printed as it is: brackets in a name or a glob are no markup. A terminal gets lines
    that end between words, a file one line a paragraph.
    """
    seen = sys.stdout.isatty()
    width = None if seen else 160
    return Console(soft_wrap=not seen, highlight=False, markup=False, emoji=False, width=width)


class Progress:
    """Reports steps of long work on standard error, so that standard output stays the result."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._console = Console(file=stream)

    def say(self, line: str) -> None:
        """One line that stays: a decision that was taken, a step that is done."""
        print(line, file=self._stream, flush=True)

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """`with task("blocks", 30) as advance: advance("block 3")` after every step."""
        if self._console.is_terminal:
            with self._bar(title, total) as advance:
                yield advance
        else:
            yield self._lines(title, total)

    @contextmanager
    def _bar(self, title: str, total: int | None) -> Iterator[Advance]:
        columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn()]
        columns += [MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[at]}")]
        with Bars(*columns, console=self._console, transient=True) as bars:
            bar = bars.add_task(title, total=total, at="")
            yield lambda at: bars.update(bar, advance=1, at=at)

    def _lines(self, title: str, total: int | None) -> Advance:
        begun = last = time.monotonic()
        done = 0

        def advance(at: str) -> None:
            nonlocal done, last
            done += 1
            if total is None:  # a rare step that takes long: said when it begins
                self.say(f"{title}: {at}")
                return
            now = time.monotonic()
            if now - last < PAUSE and done != total:
                return
            last = now
            left = (now - begun) / done * max(total - done, 0)
            self.say(f"{title}: {done}/{total} {at}, {left:.0f} s left")

        return advance
