"""The same study where the chain is true: planted models, whose every weight is a formula.

There MLPs make sinks massive, the catching head rests on them and writes the tag of a token's
segment, and the reading head reads it (docs/planted.md). So all that low rank, sinks and tags do to
the reader has to be found to go through the mediators, and nothing through what is not between:
W_Q and W_K make no outlier, and a sink that is no outlier any more has no value to write, so that
attention alone carries nothing of it.
"""

from typing import NamedTuple

import numpy as np
import torch

from experiments.findings import ABOVE_ZERO, BELOW_ZERO, Finding, Region
from experiments.parts.chain.effects import HALF, Kind, beyond, kind, through
from experiments.parts.chain.links import (
    BLOCK,
    ERASE,
    LOW_RANK,
    OFF,
    OUTLIERS,
    REMOVE,
    SEGMENTS,
    SINKS,
    TAGS,
    TOP,
    ZERO,
    Aim,
    Trial,
    trials,
)
from experiments.parts.chain.measure import Operators, Units, Values, measured
from experiments.parts.chain.one_pass import Passed
from experiments.progress import Progress
from mech.planted.build import Planted
from mech.planted.plan import RAISED
from mech.reach import Sinks

END = "reader: error"
AIMING = (
    32  # prompts that directions are found on; a part of the numbers' direction in them is error
)
LESS = Region(high=0.5)

EFFECTS = (
    (LOW_RANK, TOP, SINKS, BELOW_ZERO),
    (OUTLIERS, ZERO, SINKS, BELOW_ZERO),
    (SINKS, BLOCK, TAGS, BELOW_ZERO),
    (TAGS, REMOVE, SEGMENTS, BELOW_ZERO),
    (SEGMENTS, ERASE, END, ABOVE_ZERO),
)
THROUGH = (
    (LOW_RANK, TOP, SINKS, TAGS),
    (LOW_RANK, TOP, SINKS, END),
    (LOW_RANK, TOP, TAGS, END),
    (OUTLIERS, ZERO, TAGS, END),
    (SINKS, BLOCK, TAGS, END),
    (TAGS, REMOVE, SEGMENTS, END),
)
NOT_THROUGH = (
    (LOW_RANK, TOP, OUTLIERS, END),
    (OUTLIERS, ZERO, SINKS, END),
)
"""(link, way, mediator, what is looked at)."""


class Known(NamedTuple):
    """What the study says of planted models, one value a model."""

    kinds: list[Kind]
    findings: list[Finding]


def planted(models: int, links: tuple[str, ...], progress: Progress, seed: int = 0) -> Known:
    """The same links broken in `models` planted models; nothing below 2."""
    from mech.planted.build import planted as plant

    asked = [trial for trial in trials(links) if _asked(trial)]
    if models < 2:
        return Known([], [])
    each: list[dict[str, Values]] = []
    with progress.task("planted models", models) as advance:
        for number in range(seed, seed + models):
            made = plant(number)
            weights = _operators(made, seed) if LOW_RANK in links else {}
            units, aim = units_of(made), aim_of(made, seed)
            each.append(measured(made.model, units, aim, asked, weights, lambda _: None, seed))
            advance(f"model {number}")
    found = {
        trial: {
            name: np.array([np.nanmean(one[trial][name]) for one in each])
            for name in each[0][trial]
        }
        for trial in each[0]
        if all(trial in one for one in each)
    }
    known = kind("planted models", found)._replace(over="models")
    return Known([known], list(_findings(known)))


def _asked(trial: Trial) -> bool:
    """OATS' own terms are left out: its rank is that of a large matrix."""
    return trial.link != LOW_RANK or trial.name not in (OFF, "as many nonzeros")


def _findings(known: Kind):
    for link, way, looked, claimed in EFFECTS:
        yield from beyond(known, "ours/chain/planted-effects", link, way, looked, claimed)
    for key, rows, claimed in (
        ("ours/chain/planted-through", THROUGH, HALF),
        ("ours/chain/planted-not-through", NOT_THROUGH, LESS),
    ):
        for link, way, mediator, looked in rows:
            if Trial(link, way).key in known.found:
                yield through(known, key, Trial(link, way), mediator, looked, claimed)


def units_of(made: Planted) -> Units:
    """The model's prompts; the outcome is the error of what the reader writes in the last segment.

    Root mean square of the difference from the closed form, over that which it predicts without
    tags: next to 0 for the untouched model, 1 where no token carries a tag.
    """
    from experiments.recovery_tags import segments
    from mech.causal import elsewhere
    from mech.planted import expect
    from mech.planted.plan import BOS, SEP, STOP
    from mech.planted.stream import directions

    plan, ids = made.plan, made.tokens.numpy()
    exact = expect.read(plan, ids)
    none = np.zeros(ids.shape, bool)
    without = expect.read(plan, ids, tags=expect.Carried(none, none))
    last, out, layer = segments(made) == 2, directions(plan).out, plan.read[0]

    def rms(x: np.ndarray, here: np.ndarray) -> np.ndarray:
        return np.sqrt((x**2 * here).sum(axis=1) / here.sum(axis=1))

    def outcome(passed: Passed, rows: slice) -> Values:
        wrote = (passed.streams[layer] - passed.streams[layer - 1]) @ out
        return {
            END: rms(wrote - exact[rows], last[rows]) / rms((without - exact)[rows], last[rows])
        }

    def where(*tokens: int) -> Sinks:
        return tuple(tuple(np.flatnonzero(row).tolist()) for row in np.isin(ids, tokens))

    named = where(BOS, SEP, STOP)
    random = elsewhere(named, ids.shape[1], avoid=where(RAISED), seed=plan.seed)
    return Units("planted", made.tokens, named, random, outcome, True, (layer - 1, layer))


def aim_of(made: Planted, seed: int = 0) -> Aim:
    """The catching head, and the streams from there to the reader; directions of other prompts."""
    from experiments.parts.chain.units import directions
    from experiments.recovery_tags import segments
    from mech.capture import capture_blocks
    from mech.planted.plan import sequences

    plan = made.plan
    other = made._replace(tokens=torch.from_numpy(sequences(plan, AIMING, seed=1)))
    ordinary, owner = other.tokens.numpy() > RAISED, segments(other)
    left = capture_blocks(made.model, other.tokens, lambda block: block.resid_post)
    blocks = tuple(range(plan.catch[0], plan.read[0]))
    layer, head = plan.catch
    aim = Aim(plan.size.layers, (layer,), (head,), (plan.catch,), blocks, {}, {}, {})
    for block in blocks:
        found = directions(left[block][ordinary], owner[ordinary], seed)
        for kept, array in zip((aim.basis, aim.control, aim.mean), found, strict=True):
            kept[block] = torch.from_numpy(array).float()
    return aim


def _operators(made: Planted, seed: int) -> Operators:
    """W_Q, W_K without their top component, or a random one, in every layer but the reader's."""
    from bridge.methods.oats import OATS
    from experiments import measure, naming, variants
    from experiments.provenance import Inputs
    from experiments.where import Where

    layers = tuple(at for at in range(made.plan.size.layers) if at != made.plan.read[0])
    tokens = made.tokens
    material = measure.Material(tokens, tokens, tokens, None, Inputs())
    oats = OATS(compression=0.5, rank_ratio=0.25)
    matrices = variants.calibrated(made.model, oats, Where(layers=layers), material, Progress())
    return {
        name: variants.operators(matrices, variants.DIRECTIONS[name], seed)[0]
        for name in (naming.TOP, naming.NORM)
    }
