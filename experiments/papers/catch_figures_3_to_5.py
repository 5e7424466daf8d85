"""Catch, tag, release, figures 3 to 5: are few dimensions large at all tokens, and most at sinks?

After figures 3 to 5 of version 1: outlier features of the stream, how large they are at sinks, and
that they are the same from token to token. Sizes are in medians of the token's own entries. The
control is the same vectors in rotated axes: lengths and angles stay, dimensions do not.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.findings import ABOVE_ZERO, Finding, Region
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.tagged import finding, told
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Picture, Section, Table
from experiments.settings import Reading, between


@dataclass(frozen=True)
class Config:
    """Read the stream that enters every block, at sinks and at other tokens."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP
    epsilon: float = 0.1
    """A key is a sink when a head gives it more than this share of attention on average."""


PRESETS = {
    "smallest": Config(amounts=SMALLEST),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Llama-2-7b-hf", device="cuda"), PAPER),
}


def run(config: Config, progress: Progress) -> Answer:
    """One pass over the sequences; raises as `prepared` does."""
    from experiments import measure
    from experiments.parts.catch.outlying import KINDS, look, same

    between("epsilon", config.epsilon, 0, 1)
    work = prepared(config.reading, config.amounts, progress)
    with progress.task("outliers", len(work.sequences.split(measure.AT_ONCE))) as advance:
        layers = look(work.loaded.model, work.sequences, config.epsilon, advance)
    share = np.mean([layer.share for layer in layers], axis=0)
    peak = np.array([layer.peak for layer in layers])
    above = _mean(peak[:, :, :2] - peak[:, :, 2:])
    alike = _mean(np.array([[same(kind) for kind in layer.top] for layer in layers]))
    units = {"outliers": share[0], "outliers, rotated": share[1]}
    for which, kind in enumerate(KINDS[:2]):
        units |= {f"{kind}: size": above[0, which], f"{kind}: size, rotated": above[1, which]}
    units |= {f"{kind}: same": alike[which] for which, kind in enumerate(KINDS)}
    rows = [(name, told(values, 2)) for name, values in units.items()]
    caption = (
        "Outliers: share of dimensions above six medians at 95% of the tokens that are no sinks. "
        "Size: log10 of a sink's largest size, less that of other tokens. Same: share of tokens "
        "whose largest dimension is the one of most tokens of other sequences. Means over blocks."
    )
    data = {"size": [layer.size for layer in layers], "kinds": KINDS}
    tables = [Table(("what", "mean over sequences"), rows, caption)]
    return Answer(config, work.inputs, list(_findings(units)), tables, units, data)


def _mean(by_layer: np.ndarray) -> np.ndarray:
    """Over the blocks where there is such a token; NaN where there is none in any."""
    count = (~np.isnan(by_layer)).sum(axis=0)
    total = np.nansum(by_layer, axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _findings(units: dict) -> Iterator[Finding]:
    control, few = f"rotated axes: {told(units['outliers, rotated'], 2)}", Region(0.0, 0.01)
    share, claim = "share of the dimensions", "catch/figures-4-and-5"
    yield finding("catch/figure-3/few", "stream", units["outliers"], share, few, control, fewest=2)
    for kind in ("first", "later"):
        unit, values = "log10 of size over other tokens'", units[f"{kind}: size"]
        control = f"rotated axes: {told(units[f'{kind}: size, rotated'], 2)}"
        yield finding(
            f"{claim}/large", f"{kind} sinks", values, unit, ABOVE_ZERO, control, fewest=2
        )
    control = f"other tokens: {told(units['other: same'], 2)}; by chance 1 / d_model"
    values = units["later: same"]
    yield finding(f"{claim}/same", "later sinks", values, "share", Region(0.5), control, fewest=2)


def sections(result: Answer) -> list[Section]:
    """Claims, the table, and the sizes by dimension in the block where sinks are largest."""
    from experiments.parts.drawn import sizes

    caption = "Size of every dimension in medians of its token, mean over the tokens of a kind."
    drawn = sizes(result.data["size"], result.data["kinds"])
    return answer.sections(result, "Outlier features", [Picture("sizes", drawn, caption)])
