"""A multiple-choice task: items to answer, and other items to show before them."""

from typing import NamedTuple


class Item(NamedTuple):
    """A question: what stands before the answer, the answers, and which of them is right.

    Every answer begins with the blank that parts it from the context.
    """

    context: str
    choices: tuple[str, ...]
    gold: int


class Task(NamedTuple):
    """Items to score, and examples to put before them; no item is its own example."""

    name: str
    items: tuple[Item, ...]
    examples: tuple[Item, ...]
    between: str = "\n\n"
    """Stands between two examples, and between the last one and the item."""


def preamble(task: Task, shots: int) -> str:
    """The first `shots` examples with their right answers, as they stand before every item.

    Raises:
        ValueError: the task has fewer examples.
    """
    if shots > len(task.examples):
        raise ValueError(f"{task.name} has {len(task.examples)} examples, not {shots}")
    shown = task.examples[:shots]
    return "".join(f"{e.context}{e.choices[e.gold]}{task.between}" for e in shown)
