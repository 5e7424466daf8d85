"""Catch, tag, release, figure 6: how fast do the theorem's attention weights converge in s_tag?

After figure 6 of version 1 (theorem 7.1 of version 2): the two-layer transformer that averages what
follows [SEP], in float64. Rates are slopes of -log of what is left to the limit, 1 for e^-s.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.findings import Finding, Region
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Picture, Section, Table
from experiments.settings import between, within

SCALES = 48  # of s_tag, from 2 to 25


@dataclass(frozen=True)
class Config:
    """Random numbers in [-X, X], one [SEP], many scales."""

    T: int = 24
    """Length of a sequence."""
    t: int = 8
    """Position of [SEP], from 1."""
    X: float = 1.5
    """Largest magnitude of a number."""
    sequences: int = 1000
    """Random sequences; intervals are over them."""


PRESETS = {
    "smallest": Config(sequences=20),
    "laptop": Config(),
    "paper": Config(sequences=20_000),
}


def run(config: Config, progress: Progress) -> Answer:
    """Both layers at every scale; raises BadOption for shapes without numbers before and after."""
    from toy.theorem import error_bound, readout, residual, sink

    within("t", config.t, 2, config.T - 2)
    between("X", config.X, 0, 4)
    within("sequences", config.sequences, 2)
    T, t, X = config.T, config.t, config.X
    progress.say(f"{SCALES} scales, {config.sequences} sequences of {T} tokens")
    x = np.random.default_rng(0).uniform(-X, X, (config.sequences, T))
    scales = np.linspace(2.0, 25.0, SCALES)
    even = np.where(np.arange(1, T + 1) > t, 1 / (T - t), 0.0)
    own, after, apart, over = (np.empty((SCALES, config.sequences)) for _ in range(4))
    for i, s in enumerate(scales.tolist()):
        own[i] = 1 - sink(x, t, s)[:, t - 1]
        after[i] = (1 - sink(x, t, s)[:, t:]).mean(axis=1)
        apart[i] = np.abs(readout(x, t, s_tag=s) - even).sum(axis=1) / 2
        over[i] = np.abs(residual(x, t, s_tag=s)) / error_bound(T, t, X, s_tag=s)
    units = {
        "rate after [SEP]": _rate(scales, after, scales > 12),
        "rate of [SEP]": _rate(scales, own, scales < 5),
        "distance": apart[-1],
        "error over bound": over.max(axis=0),
    }
    rows = [(name, str(interval(values))) for name, values in units.items()]
    tables = [Table(("what", "mean over sequences"), rows, f"T = {T}, t = {t}, |x| ≤ {X:g}.")]
    curves = zip(("own", "after", "readout"), (own, after, apart), strict=True)
    data = {"scales": scales} | {name: left.mean(axis=1) for name, left in curves}
    return Answer(config, Inputs(dtype="float64"), [*_findings(units)], tables, units, data)


def _rate(scales: np.ndarray, left: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The slope of -log(left) in s, of every sequence."""
    return -np.polyfit(scales[where], np.log(left[where]), 1)[0]


def _findings(units: dict) -> Iterator[Finding]:
    rate, one = "-d log(1 - a) / ds", Region(0.9, 1.1)
    asked = (
        ("figure-6/after", "rate after [SEP]", rate, one, "e^-s: 1"),
        ("figure-6/sep", "rate of [SEP]", rate, one, "e^-s: 1"),
        ("figure-6/readout", "distance", "total variation", Region(high=1e-3), "1 / n, exactly"),
        ("theorem-7-1/sufficient", "error over bound", "ratio", Region(high=1.0), "the bound: 1"),
    )
    for place, name, unit, claimed, control in asked:
        key, found = f"catch/{place}", interval(units[name])
        yield Finding(key, name, found, unit, "sequences", claimed, control)


def sections(result: Answer) -> list[Section]:
    """Claims, rates, and what is left to the limit at each scale."""
    from experiments.parts.drawn import convergence

    drawn = convergence(result.data["scales"], result.data)
    caption = "What is left to the limit, means over sequences; dotted: e^-s and e^-(s² - s)."
    return answer.sections(result, "Convergence", [Picture("convergence", drawn, caption)])
