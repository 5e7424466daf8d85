"""Catch, tag, release, figure 6: how fast do the theorem's attention weights converge in s_tag?

After figure 6 of version 1 (theorem 7.1 of version 2): the two-layer transformer that averages what
follows [SEP], in float64, on random sequences. Rates are slopes of -log of what is left to the
limit, so that e^-s has slope 1; [SEP]'s own row is read where 1 - a can still be told from 0.
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
    scales: int = 48
    """How many values of s_tag between 2 and 25."""
    seed: int = 0
    """Of the numbers."""


PRESETS = {
    "smallest": Config(sequences=20, scales=12),
    "laptop": Config(),
    "paper": Config(sequences=20_000),
}


def run(config: Config, progress: Progress) -> Answer:
    """Both layers at every scale; raises BadOption for shapes without numbers before and after."""
    from toy.theorem import error_bound, readout, residual, sink

    within("t", config.t, 2, config.T - 2)
    between("X", config.X, 0, 4)
    within("sequences", config.sequences, 2)
    within("scales", config.scales, 8)
    T, t, X = config.T, config.t, config.X
    x = np.random.default_rng(config.seed).uniform(-X, X, (config.sequences, T))
    scales = np.linspace(2.0, 25.0, config.scales)
    even = np.where(np.arange(1, T + 1) > t, 1 / (T - t), 0.0)
    own, after, apart, over = [], [], [], []
    with progress.task("scales", config.scales) as advance:
        for s in scales.tolist():
            missing = 1 - sink(x, t, s)
            own.append(missing[:, t - 1])
            after.append(missing[:, t:].mean(axis=1))
            apart.append(np.abs(readout(x, t, s_tag=s) - even).sum(axis=1) / 2)
            over.append(np.abs(residual(x, t, s_tag=s)) / error_bound(T, t, X, s_tag=s))
            advance(f"s_tag {s:.1f}")
    curves = {"own": np.array(own), "after": np.array(after), "readout": np.array(apart)}
    units = {
        "rate after [SEP]": _rate(scales, curves["after"], scales > 12),
        "rate of [SEP]": _rate(scales, curves["own"], scales < 5),
        "distance": curves["readout"][-1],
        "error over bound": np.max(over, axis=0),
    }
    rows = [(name, str(interval(values))) for name, values in units.items()]
    tables = [Table(("what", "mean over sequences"), rows, f"T = {T}, t = {t}, |x| ≤ {X:g}.")]
    data = {"scales": scales} | {name: np.median(v, axis=1) for name, v in curves.items()}
    return Answer(config, Inputs(dtype="float64"), [*_findings(units)], tables, units, data)


def _rate(scales: np.ndarray, left: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The slope of -log(left) in s, of every sequence."""
    return -np.polyfit(scales[where], np.log(left[where]), 1)[0]


def _findings(units: dict) -> Iterator[Finding]:
    rate, limits = "-d log(1 - a) / ds", "e^-s: 1"
    for place, name, unit, claimed, control in (
        ("figure-6/after", "rate after [SEP]", rate, Region(0.9, 1.1), limits),
        ("figure-6/sep", "rate of [SEP]", rate, Region(0.9, 1.1), limits),
        ("figure-6/readout", "distance", "total variation", Region(high=1e-3), "1 / n, exactly"),
        ("theorem-7-1/sufficient", "error over bound", "ratio", Region(high=1.0), "the bound: 1"),
    ):
        key, found = f"catch/{place}", interval(units[name])
        yield Finding(key, name, found, unit, "sequences", claimed, control)


def sections(result: Answer) -> list[Section]:
    """Claims, rates, and what is left to the limit at each scale."""
    from experiments.parts.drawn import convergence

    drawn = convergence(result.data["scales"], result.data)
    caption = "What is left to the limit, medians over sequences; dotted: e^-s and e^-(s² - s)."
    return answer.sections(result, "Convergence", [Picture("convergence", drawn, caption)])
