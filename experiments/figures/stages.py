"""One sequence through the toy, stage by stage: what several pictures draw."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.settings import SEEDS, BadOption, between, within


class Stages(NamedTuple):
    """What the two layers did; `tags` is the tag coordinate of the tokens after [SEP]."""

    t: int
    numbers: Float[np.ndarray, " seq"]
    pattern: Float[np.ndarray, "query key"]  # layer 1
    stream: Float[np.ndarray, "seq d_model"]  # after layer 1
    readout: Float[np.ndarray, " key"]  # the last row of layer 2
    output: float
    target: float  # mean after [SEP]

    @property
    def sink(self) -> float:
        """The least attention that a token after [SEP] pays to it."""
        return float(self.pattern[self.t :, self.t - 1].min())

    @property
    def tags(self) -> Float[np.ndarray, " n"]:
        """The tag coordinate after [SEP]."""
        return self.stream[self.t :, 1]

    @property
    def uniform(self) -> Float[np.ndarray, " key"]:
        """1 / n after [SEP], 0 elsewhere."""
        after = np.arange(1, len(self.numbers) + 1) > self.t
        return after / after.sum()


def observe(x: Float[np.ndarray, " seq"], t: int, s_tag: float, *, tagging: bool = True) -> Stages:
    """The flax transformer in float64 at the theorem's weights, b = 0, d = 1.

    Without `tagging` W_V1 is 0: the same sink, and nothing written. Raises `toy.errors.Refused`.
    """
    from toy.inputs import check_scale, numbers_of
    from toy.transformer import forward, theorem_weights

    check_scale(s_tag)
    x = numbers_of(x, t)
    weights = theorem_weights(s_tag)
    if not tagging:
        weights = weights._replace(W_V1=np.zeros((2, 2)))
    outputs, trace = forward(weights, x[None], t)
    return Stages(
        t=t,
        numbers=x,
        pattern=trace.pattern[0, 0, 0],
        stream=trace.resid[1, 0],
        readout=trace.pattern[1, 0, 0, -1],
        output=float(outputs[0]),
        target=float(x[t:].mean()),
    )


def refuse_bad_shapes(T: int, t: int, X: float, seed: int) -> None:
    """Options that draw no sequence.

    Raises:
        BadOption: one of them.
    """
    within("T", T, 2, 512)
    if not 1 <= t < T:
        raise BadOption(f"--t {t}: give a position of [SEP] from 1 to {T - 1}, below --T {T}")
    between("X", X, 0, 1e3)
    within("seed", seed, 0, SEEDS)
