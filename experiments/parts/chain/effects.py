"""Effects of broken links, shares that a held mediator carries, and what could have been seen."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.findings import ABOVE_ZERO, BELOW_ZERO, Finding, Region
from experiments.intervals import Interval, interval
from experiments.parts.chain.links import (
    ANY,
    BESIDE,
    BLOCK,
    CAUSES,
    ERASE,
    HOLDS,
    LOW_RANK,
    MEAN,
    OFF,
    OUTLIERS,
    REMOVE,
    SEGMENTS,
    SINKS,
    TAGS,
    TOP,
    ZERO,
    Trial,
)
from experiments.parts.chain.measure import DENSE, Values
from experiments.recalls import Ratio, share
from experiments.report import Table

POWER = 1.96 + 0.8416  # standard errors that are seen in 80% of cases at 5%
HALF = Region(low=0.5)
Measured = Mapping[str, Values]
"""By trial, the values of every link; the dense model's among them."""

ORDER = (OUTLIERS, SINKS, TAGS, SEGMENTS)
UNITS = {
    OUTLIERS: "of the dense model's massive numbers' size",
    SINKS: "of the dense model's sinks",
    TAGS: "ARI of heads' outputs with the sinks' groups",
    SEGMENTS: "balanced accuracy of a straight line",
}
_BROKEN = {
    "low-rank": ((LOW_RANK, OFF), (LOW_RANK, TOP)),
    "outliers": ((OUTLIERS, ZERO),),
    "sinks": ((SINKS, BLOCK),),
    "tags": ((TAGS, REMOVE), (TAGS, MEAN)),
    "segments": ((SEGMENTS, ERASE),),
}
_PAIRS = (
    ("low-rank", OUTLIERS),
    ("low-rank", SINKS),
    ("outliers", SINKS),
    ("sinks", TAGS),
    ("tags", SEGMENTS),
)
"""Neighbours in the chain: the first broken, the second looked at."""


class Kind(NamedTuple):
    """Sequences of one kind: what was found, what they end in, and what n counts."""

    name: str
    found: Measured
    ends: tuple[str, ...]
    over: str = "sequences"


def kind(name: str, found: Measured) -> Kind:
    """With what comes after the links: losses and accuracies."""
    return Kind(name, found, tuple(end for end in found[DENSE.key] if end not in ORDER))


def units(kinds: list[Kind]) -> dict[str, Float[np.ndarray, " unit"]]:
    """Every value of every sequence, by kind, trial and measure."""
    return {
        f"{each.name}; {trial}; {name}": value
        for each in kinds
        for trial, values in each.found.items()
        for name, value in values.items()
    }


def later(values: Values) -> list[str]:
    """The measures of one kind of sequences in the order of the chain, outcomes last."""
    return [name for name in ORDER if name in values] + [n for n in values if n not in ORDER]


def difference(found: Measured, trial: str, other: str, name: str) -> Interval | None:
    """Value under `trial` less that under `other`, paired; sequences without a number left out."""
    if trial not in found or other not in found:
        return None
    values = found[trial][name] - found[other][name]
    values = values[~np.isnan(values)]
    return interval(values) if len(values) > 1 else None


def detectable(values: Float[np.ndarray, " unit"]) -> float:
    """2.80 σ / √n of paired differences: an effect of this size is seen in 80% of cases at 5%."""
    values = values[~np.isnan(values)]
    return POWER * float(values.std(ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else np.nan


def carried(found: Measured, cause: str, held: str, name: str) -> Interval | None:
    """Σ (y(cause) - y(cause, mediator held)) / Σ (y(cause) - y(dense)), drawn over sequences.

    The share of the total effect that goes away when the mediator is what it was: 1 where all of
    it goes through. None where the total effect is not clear of 0: nothing is there to carry.
    """
    total = difference(found, cause, DENSE.key, name)
    if total is None or held not in found or total.low <= 0 <= total.high:
        return None
    plain, broken, mended = (found[key][name] for key in (DENSE.key, cause, held))
    there = ~np.isnan(plain + broken + mended)
    sign = np.sign(total.mean)  # a share is of something positive
    return share(Ratio(sign * (broken - mended)[there], sign * (broken - plain)[there]))


def findings(kinds: list[Kind]) -> list[Finding]:
    """Neighbours, ends, and what mediators carry; breaks that were not asked are left out."""
    return [*_neighbours(kinds), *_ends(kinds), *_mediated(kinds)]


def _neighbours(kinds: list[Kind]) -> Iterator[Finding]:
    for broken, looked in _PAIRS:
        for link, way in _BROKEN[broken]:
            for kind in kinds:
                if looked in kind.found[DENSE.key]:
                    claim = f"ours/chain/{broken}-{looked}"
                    yield from beyond(kind, claim, link, way, looked, BELOW_ZERO)


def _ends(kinds: list[Kind]) -> Iterator[Finding]:
    """Every link broken, the outcomes: losses rise, accuracies fall."""
    for broken, ways in _BROKEN.items():
        for link, way in ways:
            for kind in kinds:
                for end in kind.ends:
                    claimed = BELOW_ZERO if "accuracy" in end else ABOVE_ZERO
                    where = "few-shot" if ":" in end else "loss"
                    claim = f"ours/chain/{broken}-{where}"
                    yield from beyond(kind, claim, link, way, end, claimed)


def beyond(
    kind: Kind, claim: str, link: str, way: str, name: str, claimed: Region
) -> Iterator[Finding]:
    """What breaking a link does beyond its control; nothing where it was not broken."""
    cause, beside = Trial(link, way).key, Trial(link, BESIDE[link, way]).key
    if cause not in kind.found:
        return
    effect = difference(kind.found, cause, beside, name)
    alone, control = (difference(kind.found, t, DENSE.key, name) for t in (cause, beside))
    yield Finding(
        claim=claim,
        case=_case(Trial(link, way), name, kind),
        effect=effect,
        unit=UNITS.get(name, "share of items" if "accuracy" in name else "nats a token"),
        over=kind.over,
        claimed=claimed,
        control=f"less {BESIDE[link, way]} ({control}); alone {alone}",
        note="" if effect else "the control cannot be made here, or nothing is left to compare",
    )


def _mediated(kinds: list[Kind]) -> Iterator[Finding]:
    for (link, way), mediators in HOLDS:
        for mediator in mediators:
            if mediator == ANY:
                continue
            for kind in kinds:
                cause = Trial(link, way)
                if cause.key in kind.found:
                    for name in _after(kind.found[DENSE.key], mediator):
                        which = f"{cause.link.replace(' ', '-')}-through-{mediator}"
                        yield through(kind, f"ours/chain/{which}", cause, mediator, name)


def _after(values: Values, mediator: str) -> list[str]:
    """What comes later in the chain than the mediator."""
    order = later(values)
    at = ORDER.index(mediator)
    return [name for name in order if name not in ORDER or ORDER.index(name) > at]


def through(
    kind: Kind, claim: str, cause: Trial, mediator: str, name: str, claimed: Region = HALF
) -> Finding:
    """Which share of the effect of `cause` on a later link is gone with the mediator held."""
    found = kind.found
    held = cause._replace(held=mediator).key
    effect = carried(found, cause.key, held, name)
    total = difference(found, cause.key, DENSE.key, name)
    left = difference(found, held, DENSE.key, name)
    other = carried(found, cause.key, cause._replace(held=ANY).key, name)
    control = f"total {total}, left {left}"
    if other is not None:
        control += f"; as many random tokens held {other}"
    return Finding(
        claim=claim,
        case=_case(cause, name, kind, mediator),
        effect=effect,
        unit="share of the total effect",
        over=kind.over,
        claimed=claimed,
        control=control,
        note="" if effect else f"no total effect that is clear of 0: {total}",
    )


def _case(cause: Trial, name: str, kind: Kind, mediator: str = "") -> str:
    """As "low rank: top component gone, through sinks; tags of text"."""
    way = f"{cause.key}, through {mediator}" if mediator else cause.key
    return f"{way}; {name} of {kind.name}" if name in ORDER else f"{way}; {name}"


def tables(kinds: list[Kind]) -> list[Table]:
    """One table a kind of sequences: every trial, every link, with what could have been seen."""
    return [_table(kind) for kind in kinds]


def _table(kind: Kind) -> Table:
    names = later(kind.found[DENSE.key])
    dense = kind.found[DENSE.key]
    rows = [("untouched", *(_mean(dense[name]) for name in names))]
    controls = {trial.key for trial in CAUSES if trial.control}
    for trial in kind.found:
        if trial != DENSE.key:
            cells = (difference(kind.found, trial, DENSE.key, name) for name in names)
            label = f"control, {trial}" if trial in controls else trial
            rows.append((label, *("–" if cell is None else str(cell) for cell in cells)))
    seen = []
    for name in names:
        each = [
            detectable(values[name] - dense[name])
            for trial, values in kind.found.items()
            if trial in controls
        ]
        seen.append(f"{np.nanmedian(each):.2g}" if np.isfinite(each).any() else "–")
    rows.append(("seen in 80% of cases (median of the controls)", *seen))
    caption = (
        f"{kind.name}: the first row is the untouched model, the others are paired differences "
        "with it, 95% intervals over sequences."
    )
    return Table(("what is changed", *names), rows, caption)


def _mean(values: Float[np.ndarray, " unit"]) -> str:
    there = values[~np.isnan(values)]
    return str(interval(there)) if len(there) > 1 else "–"
