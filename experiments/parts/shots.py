"""Answers with k examples and with none, of one model after another, on the same items."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from experiments.fewshot import tasks
from experiments.fewshot.paired import Paired, holm, paired
from experiments.fewshot.task import Item, Task
from experiments.intervals import Interval, interval
from experiments.progress import Progress

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.parts.work import Work


class Shots(NamedTuple):
    """Which items were right without examples, and with them."""

    none: Bool[np.ndarray, " items"]
    some: Bool[np.ndarray, " items"]

    @property
    def gained(self) -> Float[np.ndarray, " items"]:
        """1 where the examples made an item right, -1 where they made it wrong."""
        return self.some.astype(float) - self.none

    @property
    def gain(self) -> Interval:
        """Accuracy with examples less accuracy without."""
        return interval(self.gained)

    def compared(self) -> Paired:
        """The gain, with the items that changed and McNemar's p."""
        return paired(self.none, self.some)


def folder_of(given: Path | None) -> Path | None:
    """The folder of local tasks: as given, or $CTR_DATA/tasks where there is one."""
    here = Path(os.environ.get("CTR_DATA", "")) / "tasks"
    return given or (here if os.environ.get("CTR_DATA") and here.is_dir() else None)


def chosen(names: Sequence[str], folder: Path | None, limit: int, seed: int) -> list[Task]:
    """The tasks by name, of every one that can be asked where no name is given.

    Raises:
        BadOption: as `experiments.fewshot.tasks.task`.
    """
    folder = folder_of(folder)
    wanted = names or tuple(tasks.available(folder))
    return [tasks.task(name, folder, limit, seed) for name in wanted]


def wrong(task: Task) -> Task:
    """The same examples with a wrong answer each: the next of their choices."""

    def other(item: Item) -> Item:
        return item._replace(gold=(item.gold + 1) % len(item.choices))

    return task._replace(examples=tuple(map(other, task.examples)))


def answered(
    work: "Work", asked_of: Sequence[Task], shots: Sequence[int], progress: Progress, name: str
) -> list[list[Bool[np.ndarray, " items"]]]:
    """Per task and number of examples, which items are right; kept for the next time."""
    from experiments.fewshot.kept import asked, weights_of

    model, tokenizer = work.loaded.model, work.loaded.tokenizer
    total = len(shots) * sum(len(task.items) for task in asked_of)
    weights, found = weights_of(model), []
    with progress.task(f"{name}: items", total) as advance:
        for task in asked_of:
            row = [asked(model, tokenizer, task, k, advance, weights=weights) for k in shots]
            found.append([one.correct for one in row])
    return found


def adjusted(dense: dict[str, Shots]) -> dict[str, float]:
    """McNemar's p of every task's gain, by Holm over the tasks."""
    return holm({name: found.compared().p for name, found in dense.items()})


def chance(task: Task) -> float:
    """Accuracy of guessing: the mean of one over the number of choices."""
    return float(np.mean([1 / len(item.choices) for item in task.items]))
