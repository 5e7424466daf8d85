"""Does copying need tags? Loss on the second of two equal stretches of text, under edits.

The one task here that needs attention to reach far back: the second copy can be had from the
first, so its loss falls by far. Sinks are found again on the repeated text, by the same rule.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from experiments.intervals import Interval, interval
from experiments.measure import sink_scores
from experiments.probing.causal import Plan, late_sinks
from experiments.probing.effects_of_edits import Edits, losses
from experiments.progress import Advance
from mech.causal import elsewhere
from mech.edits import Block, Edit, Mean, RandomDirection, Remove
from mech.errors import BadInput
from mech.reach import Sinks, Where

PASSES = 7  # told to the bar


class Repeat(NamedTuple):
    """second: change of the second copy's loss, first: of the first's, nats a token, paired.

    The untouched model's row holds the losses themselves.
    """

    edit: str
    first: Interval
    second: Interval


def measure(
    model: PreTrainedModel,
    ids: Int[Tensor, "judged seq"],
    plan: Plan,
    epsilon: float,
    advance: Advance,
) -> list[Repeat]:
    """[BOS] a a with a the first half of each sequence's text, plain and under a few edits."""
    half = (ids.shape[1] - 1) // 2
    twice = torch.cat([ids[:, :1], ids[:, 1 : 1 + half], ids[:, 1 : 1 + half]], dim=1)
    scores = sink_scores(model, twice, lambda _: None)
    advance("sinks of the repeated text")
    late = late_sinks(scores[list(plan.early)], epsilon)
    both = tuple((0, *row) for row in late)
    random = elsewhere(both, twice.shape[1], avoid=plan.first, seed=2)

    def at(kind: type, layers: tuple[int, ...], tokens: Sinks, *more: object) -> Edits:
        def edits(rows: slice) -> list[Edit]:
            return [kind(Where(layers, tokens[rows]), *more)]

        return edits

    trials: list[tuple[str, Edits]] = [
        ("remove late + first, early layers", at(Remove, plan.early, both)),
        (
            "… random direction of equal norm",
            at(RandomDirection, plan.early, both, 0, True),
        ),
        ("… of as many random tokens", at(Remove, plan.early, random)),
        ("block late + first, early layers", at(Block, plan.early, both)),
        ("mean of the first token's, late layers", at(Mean, plan.after, plan.first)),
    ]
    at_ = np.arange(twice.shape[1])
    halves = [(at_ > 0) & (at_ <= half), at_ > half]

    plain = losses(model, twice, lambda rows: ())
    advance("untouched")
    found = [Repeat("untouched", *(interval(plain[:, h[1:]].mean(axis=1)) for h in halves))]
    for name, edits in trials:
        try:
            change = losses(model, twice, edits) - plain
        except BadInput:  # more sinks than a head has room for: that control is left out
            if "random direction" not in name:
                raise
            continue
        finally:
            advance(name)
        found.append(Repeat(name, *(interval(change[:, h[1:]].mean(axis=1)) for h in halves)))
    return found
