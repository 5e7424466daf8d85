"""The chain as boxes and arrows, what breaking it costs, what mediators carry: from findings."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.findings import Finding, Verdict
from experiments.pictures import figure, forest
from experiments.report import BLUE, INK, ORANGE, Picture

_AT = {
    "low-rank": (0.0, 1.0),
    "outliers": (1.0, 0.0),
    "sinks": (2.0, 1.0),
    "tags": (3.0, 1.0),
    "segments": (4.0, 1.0),
    "few-shot": (5.0, 1.0),
}
_NAMES = {
    "low-rank": "low rank\nof W_Q, W_K",
    "outliers": "massive\nactivations",
    "sinks": "sinks",
    "tags": "tags",
    "segments": "segments\nin the stream",
    "few-shot": "few-shot",
}
_ARROWS = (
    ("low-rank", "sinks", (1.0, 1.17)),
    ("low-rank", "outliers", (0.0, 0.2)),
    ("outliers", "sinks", (2.0, 0.2)),
    ("sinks", "tags", (2.5, 1.17)),
    ("tags", "segments", (3.5, 1.17)),
    ("segments", "few-shot", (4.5, 1.17)),
)
"""From, to, and where the lowest effect is written."""
_LINE = 0.24  # between two effects
_COLOUR: dict[Verdict, str] = {
    "shown": BLUE,
    "contradicted": ORANGE,
    "not shown": "#888888",
    "untested": "#bbbbbb",
}
_GAP = 0.34  # between a box and its arrows


def pictures(findings: Sequence[Finding]) -> list[Picture]:
    """The chain; losses and few-shot accuracies; shares. None of what was not measured."""
    shown = [
        Picture(
            "chain",
            chain(findings),
            "Breaking the link at an arrow's foot: what the link at its head loses beyond a "
            "control of equal size. Blue: the effect is there; orange: there is none or the "
            "opposite; grey: the interval holds 0.",
        )
    ]
    for name, ends, label, title in (
        ("chain-loss", ("-loss", "-few-shot"), "nats a token, beyond the control", "nats"),
        ("chain-accuracy", ("-few-shot",), "share of items, beyond the control", "accuracy"),
    ):
        rows = [f for f in _real(findings) if f.claim.endswith(ends) and _of(f, title)]
        if rows:
            caption = "What breaking each link does to the end of the chain; 95% intervals."
            shown.append(Picture(name, _forest(rows, label, f"The end: {title}"), caption))
    caption = (
        "Share of the total effect that is gone when the mediator is held at what it is in the "
        "dense model; 1: all. Only where the total effect is clear of 0."
    )
    for broken, rows in _broken(findings).items():
        title = f"Broken: {broken}. How much goes through the mediator?"
        name = f"chain-shares-{broken.replace(' ', '-')}"
        shown.append(Picture(name, _forest(rows, "share", title), caption))
    return shown


def chain(findings: Sequence[Finding]) -> Figure:
    """Boxes in the order of the chain; at every arrow the effects of breaking its foot."""
    canvas, (axes,) = figure(13, 4.2)
    for foot, head, (x, y) in _ARROWS:
        rows = [f for f in _real(findings) if f.claim == f"ours/chain/{foot}-{head}"]
        rows = [f for f in rows if f.case.endswith("accuracy" if head == "few-shot" else "of text")]
        colours = {_COLOUR[row.verdict] for row in rows} or {_COLOUR["untested"]}
        start, end = (np.array(_AT[name]) for name in (foot, head))
        way = (end - start) / np.linalg.norm(end - start) * _GAP
        arrow = {"arrowstyle": "-|>", "lw": 2, "shrinkA": 0, "shrinkB": 0}
        arrow["color"] = colours.pop() if len(colours) == 1 else INK
        axes.annotate("", tuple(end - way), tuple(start + way), arrowprops=arrow)
        for index, row in enumerate(rows):
            at, colour = (x, y + _LINE * index), _COLOUR[row.verdict]
            axes.text(*at, _words(row), ha="center", va="bottom", fontsize=8.5, color=colour)
        if not rows:
            axes.text(x, y, "not asked", ha="center", va="bottom", fontsize=8.5)
    for name, (x, y) in _AT.items():
        axes.text(
            x,
            y,
            _NAMES[name],
            ha="center",
            va="center",
            fontsize=10,
            bbox={"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": INK},
        )
    axes.set(xlim=(-0.5, 5.5), ylim=(-0.25, 1.75))
    axes.axis("off")
    return canvas


def _broken(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """The shares that go through a mediator, by the link that was broken; planted ones apart."""
    found: dict[str, list[Finding]] = {}
    for row in findings:
        if "through" in row.claim and row.effect is not None:
            link = "planted models" if "planted" in row.claim else row.case.partition(":")[0]
            found.setdefault(link, []).append(row)
    return found


def _words(row: Finding) -> str:
    """The way in which the link is broken, and below it the effect; of tasks, which one."""
    way, _, looked = row.case.partition(": ")[2].partition("; ")
    task = f", {looked.partition(':')[0]}" if ":" in looked else ""
    found = "not measured" if row.effect is None else str(row.effect)
    return f"{way}{task}\n{found}"


def _real(findings: Sequence[Finding]) -> Iterator[Finding]:
    return (f for f in findings if "planted" not in f.claim and "through" not in f.claim)


def _of(row: Finding, what: str) -> bool:
    return row.effect is not None and (
        ("accuracy" in row.unit or "share" in row.unit) == (what == "accuracy")
    )


def _forest(rows: Sequence[Finding], label: str, title: str) -> Figure:
    effects = [row.effect for row in rows if row.effect is not None]
    mean, low, high = (np.array(column) for column in list(zip(*effects, strict=True))[:3])
    names = [row.case for row in rows]
    return forest(names, mean, low, high, label, title)
