"""Gains from examples as rows, as units, and as a picture."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from experiments.fewshot.power import detectable
from experiments.fewshot.task import Task
from experiments.findings import ABOVE_ZERO, BELOW_ZERO, Finding
from experiments.intervals import interval
from experiments.parts.answer import Answer
from experiments.parts.shots import Shots, chance
from experiments.pictures import figure
from experiments.report import BLUE, INK, ORANGE, Picture, Table

COLOURS = {"dense": INK, "misled": ORANGE}
By = Mapping[str, Mapping[str, Shots]]


def units(by: By) -> dict[str, Float[np.ndarray, " items"]]:
    """Whether each item is right, 1 or 0, by model, task and with or without examples."""
    found = {}
    for model, rows in by.items():
        for task, shots in rows.items():
            found[f"{model}/{task}/none"] = shots.none.astype(float)
            found[f"{model}/{task}/some"] = shots.some.astype(float)
    return found


def findings(by: By, p: Mapping[str, float], shots: int) -> Iterator[Finding]:
    """The dense gains; what wrong answers leave of them; what compression leaves of them."""
    dense = by["dense"]
    unit = f"accuracy with {shots} examples less accuracy without"
    for task, found in dense.items():
        control = f"no examples: {_share(found.none)}; p {p[task]:.2g} (McNemar, Holm)"
        claim, effect = "ours/few-shot/gain", found.gain
        yield Finding(claim, task, effect, unit, "items", ABOVE_ZERO, control)
    for model, rows in by.items():
        beside = by.get("wanda", dense) if model == "oats" else dense
        for task, found in rows.items() if model != "dense" else ():
            less = found.gained - beside[task].gained
            case, claimed, sign = CLAIMED.get(model, CLAIMED["sparse"])
            yield Finding(
                f"ours/few-shot/{case}",
                f"{model}, {task}",
                interval(sign * less),
                f"{unit}, {'dense less it' if sign < 0 else 'it less control'}",
                "items",
                claimed,
                f"{'wanda' if beside is not dense else 'dense'}: {beside[task].gain}",
                f"detectable: {detectable(less):.3f}",
            )


CLAIMED = {
    "misled": ("answers", ABOVE_ZERO, -1),
    "oats": ("oats", ABOVE_ZERO, 1),
    "sparse": ("sparse", BELOW_ZERO, 1),
}
"""By model: its claim, what that allows, and the sign of the difference."""


def tables(by: By, p: Mapping[str, float], tasks: Sequence[Task]) -> list[Table]:
    """The dense model on every task; then every model on the tasks that it gains on."""
    dense, guess = by["dense"], {task.name: chance(task) for task in tasks}
    rows = [
        (
            task,
            str(len(found.none)),
            f"{guess[task]:.2f}",
            _share(found.none),
            _share(found.some),
            str(found.gain),
            f"{found.compared().p:.2g}",
            f"{p[task]:.2g}",
            f"{detectable(found.gained):.3f}",
        )
        for task, found in dense.items()
    ]
    head = ("task", "items", "chance", "no examples", "with examples", "gain")
    first = Table(
        (*head, "p", "p, Holm", "detectable"),
        rows,
        "The dense model. Accuracies with 95% intervals over items; p: McNemar, exact, then by "
        "Holm over the tasks; detectable: the true gain that so many items show in 80% of studies.",
    )
    rows = [
        (
            task,
            "dense, wrong answers shown" if model == "misled" else model,
            _share(found.none),
            _share(found.some),
            str(found.gain),
            str(interval(found.gained - dense[task].gained)),
            f"{detectable(found.gained - dense[task].gained):.3f}",
        )
        for task in dense
        for model, rows in by.items()
        if task in rows and model != "dense"
        for found in [rows[task]]
    ]
    second = Table(
        ("task", "model", *head[3:], "gain less dense", "detectable"),
        rows,
        "Tasks that the dense model gains on, the same items for every model; differences are "
        "paired by item. The tasks were chosen by the dense model's answers to these items, and "
        "the examples are one draw: an interval over items says nothing of other examples.",
    )
    return [first, second]


def _share(correct: np.ndarray) -> str:
    return str(interval(correct.astype(float)))


def pictures(result: Answer) -> list[Picture]:
    """The gain of every model on every task, with its interval."""
    gains: dict[str, dict[str, np.ndarray]] = {}
    for name, some in result.units.items():
        model, task, which = name.split("/")
        if which == "some":
            gains.setdefault(task, {})[model] = some - result.units[f"{model}/{task}/none"]
    compared = {task: rows for task, rows in gains.items() if len(rows) > 1}
    if not compared:
        return []
    canvas, axes = figure(3.4 * len(compared) + 1.5, 3.2, columns=len(compared))
    for column, (axis, (task, rows)) in enumerate(zip(axes, compared.items(), strict=True)):
        places = range(len(rows) - 1, -1, -1)
        for place, (model, values) in zip(places, rows.items(), strict=True):
            found = interval(values)
            reach = [[found.mean - found.low], [found.high - found.mean]]
            axis.errorbar(found.mean, place, xerr=reach, fmt="o", color=COLOURS.get(model, BLUE))
        names = ["wrong answers" if model == "misled" else model for model in rows]
        axis.set_yticks(list(places), names if column == 0 else [""] * len(rows))
        axis.axvline(0, color="#999999", linewidth=0.8)
        axis.set(title=task, xlabel="gain in accuracy")
    caption = "Accuracy with examples less accuracy without, 95% intervals over items."
    return [Picture("gains", canvas, caption)]
