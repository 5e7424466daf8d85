"""Initialisation x optimiser x data tail x seed: trained side by side, stopped at any moment.

Cells that share optimiser and data differ only in where their seeds start: they are trained in
one batch, in groups of at most `Plan.lanes` seeds, so that memory does not grow with the sweep.
Every group's training is written to the state folder at checkpoints (`toy.checkpoint`); a sweep
that was killed reads it back and ends with the same bytes as one that was not.
"""

import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from toy.checkpoint import load_training, save_training
from toy.errors import Refused
from toy.sweep_plan import Cell, Group, Plan, groups, initial, recipe_of
from toy.sweep_state import check_plan, in_use
from toy.train import Training, begin, proceed
from toy.transformer import Weights


class Trial(NamedTuple):
    """A cell's seeds: where they started and what became of them."""

    cell: Cell
    start: Weights
    training: Training


class Report(NamedTuple):
    """How a sweep tells what it does: `advance` at every checkpoint, `say` for what is rare."""

    advance: Callable[[str], None]
    say: Callable[[str], None]


def sweep(plan: Plan, folder: Path, report: Report, *, every: float = 20.0) -> list[Trial]:
    """Train the plan with its state in `folder`, at most `every` seconds behind; or finish it.

    Raises `Refused`: the folder holds another plan or other files, or another sweep uses it.
    """
    start = initial(plan)
    with in_use(folder):
        check_plan(plan, folder)
        done = [_trained(plan, group, start, folder, report, every) for group in groups(plan)]
    return list(_trials(plan, start, done))


def _trained(
    plan: Plan, group: Group, start: Weights, folder: Path, report: Report, every: float
) -> Training:
    path = folder / f"group-{group.number:04}.safetensors"
    training = _resumed(plan, group, start, path, report)
    written = time.monotonic()
    while training.done < plan.steps:
        training = proceed(training)
        if training.done == plan.steps or time.monotonic() - written >= every:
            save_training(path, training)
            written = time.monotonic()
        report.advance(f"{group.optimizer} on {group.data}, step {training.done}")
    return training


def _resumed(plan: Plan, group: Group, start: Weights, path: Path, report: Report) -> Training:
    recipe = recipe_of(plan, group.optimizer, group.data)
    anew = begin(recipe, Weights(*(field[group.part] for field in start)))
    if not path.exists():
        return anew
    try:
        found = load_training(path)
    except Refused as refused:
        report.say(f"{refused}: this group begins again")
        return anew
    if found.recipe != recipe:
        report.say(f"{path} holds another group: this one begins again")
        return anew
    for _ in range(found.done * plan.checkpoints // plan.steps):
        report.advance(f"{group.optimizer} on {group.data}, kept")
    return found


def _trials(plan: Plan, start: Weights, done: list[Training]) -> Iterator[Trial]:
    """The groups cut into cells."""
    for optimizer, data in product(plan.optimizers, plan.data):
        parts = [
            training for group, training in zip(groups(plan), done, strict=True)
            if (group.optimizer, group.data) == (optimizer, data)
        ]  # fmt: skip
        whole = _joined(parts)
        for number, name in enumerate(plan.initialisations):
            rows = slice(number * plan.seeds, (number + 1) * plan.seeds)
            cut = jax.tree.map(lambda field, rows=rows: np.asarray(field)[rows], whole.state)
            history = whole.history._replace(
                **{name: value[rows] for name, value in whole.history._asdict().items()
                   if name != "step"}
            )  # fmt: skip
            begun = Weights(*(field[rows] for field in start))
            training = whole._replace(state=cut, history=history)
            yield Trial(Cell(name, optimizer, data), begun, training)


def _joined(parts: list[Training]) -> Training:
    def join(*fields: Array | np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(field) for field in fields])

    state = jax.tree.map(join, *(part.state for part in parts))
    step = parts[0].history.step
    history = jax.tree.map(join, *(part.history for part in parts))._replace(step=step)
    return parts[0]._replace(state=state, history=history)
