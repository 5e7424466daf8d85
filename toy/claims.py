"""The theorem as statements, each as what is measured in the flax model and what is proved.

`measured` runs the literal two-layer transformer in float64 and returns the value farthest from
`predicted`; `tolerance` is the proved bound plus the rounding of that float64 pass, so that
neither can be loosened by hand. docs/theory.md has the proofs.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy import bounds
from toy.transformer import ToyTrace, forward, theorem_weights


class Setting(NamedTuple):
    """One sequence shape, one bound on the numbers, one set of weights, `draws` inputs."""

    T: int = 16
    t: int = 6
    X: float = 2.0
    s_tag: float = 20.0
    b: float = 0.3
    d: float = 1.0
    draws: int = 200
    seed: int = 0


class Claim(NamedTuple):
    """|measured - predicted| <= tolerance, for every setting with a positive guaranteed query."""

    measured: Callable[[Setting], float]
    predicted: Callable[[Setting], float]
    tolerance: Callable[[Setting], float]


class _Seen(NamedTuple):
    x: Float[np.ndarray, "batch seq"]
    output: Float[np.ndarray, " batch"]
    trace: ToyTrace


@lru_cache(maxsize=8)
def _observe(setting: Setting) -> _Seen:
    """Half of the inputs inside the box, half at its corners."""
    rng = np.random.default_rng(setting.seed)
    shape = (setting.draws, setting.T)
    inside = rng.uniform(-setting.X, setting.X, shape)
    x = np.where(np.arange(setting.draws)[:, None] % 2, inside, np.sign(inside) * setting.X)
    weights = theorem_weights(setting.s_tag, setting.b, setting.d)
    return _Seen(x, *forward(weights, x, setting.t))


def _tags(setting: Setting) -> Float[np.ndarray, "batch seq"]:
    return _observe(setting).trace.resid[1, :, :, 1]


def rounding_of_tags(setting: Setting) -> float:
    """Absolute error of a float64 tag: u s (4 (s + 1 + X^2) + 2 T + 8), u = 2^-52.

    Scores up to s + 1 + X^2 carry that many units of u, twice, into numerator and denominator of
    a softmax; then T products of size s are summed.
    """
    u, s = float(np.finfo(np.float64).eps), setting.s_tag
    return u * s * (4 * (s + 1 + setting.X**2) + 2 * setting.T + 8)


def rounding_of_weights(setting: Setting) -> float:
    """Total variation lost to float64 in A2[T, .]: twice the error of a logit q tau_j."""
    query = abs(setting.d) * setting.s_tag + abs(setting.b) * setting.X
    return 2 * rounding_of_tags(setting) * (query + abs(setting.d) * setting.s_tag)


def _at(setting: Setting) -> dict[str, float]:
    return {"s_tag": setting.s_tag, "b": setting.b, "d": setting.d}


def _error(setting: Setting) -> float:
    """The output is the mean after [SEP]: |f - m| -> 0 as s grows (Theorem B)."""
    seen = _observe(setting)
    return float(np.abs(seen.output - seen.x[:, setting.t :].mean(axis=1)).max())


def _error_bound(setting: Setting) -> float:
    bound = bounds.error_bound(setting.T, setting.t, setting.X, **_at(setting))
    return bound + 2 * setting.X * rounding_of_weights(setting)


def _least_sink(setting: Setting) -> float:
    """Catch: every token after [SEP] looks at nothing but [SEP], A1[i, t] -> 1."""
    return float(_observe(setting).trace.pattern[0, :, 0, setting.t :, setting.t - 1].min())


def _sink_defect(setting: Setting) -> float:
    lower = bounds.sink_bounds(setting.T, setting.t, setting.X, s_tag=setting.s_tag).lower
    return float(1 - lower[setting.t :].min()) + rounding_of_tags(setting) / setting.s_tag


def _least_tag(setting: Setting) -> float:
    """Tag: every token after [SEP] gets the same tag, s - 1."""
    return float(_tags(setting)[:, setting.t :].min())


def _tag_defect(setting: Setting) -> float:
    lower = bounds.tag_bounds(setting.T, setting.t, setting.X, s_tag=setting.s_tag).lower
    return float(setting.s_tag - 1 - lower[setting.t :].min()) + rounding_of_tags(setting)


def _tag_before(setting: Setting) -> float:
    """No token before [SEP] is tagged: exactly 0, for any s."""
    return float(np.abs(_tags(setting)[:, : setting.t - 1]).max(initial=0.0))


def _tag_of_sep(setting: Setting) -> float:
    """[SEP]'s own outlier is erased by layer 1: |tau_t| <= (s - 1)(t - 1) e^{-s(s-1)}."""
    return float(np.abs(_tags(setting)[:, setting.t - 1]).max())


def _sep_defect(setting: Setting) -> float:
    lower = bounds.tag_bounds(setting.T, setting.t, setting.X, s_tag=setting.s_tag).lower
    return float(-lower[setting.t - 1]) + rounding_of_tags(setting)


def _outlier_coordinate(setting: Setting) -> float:
    """The outlier feature is coordinate 1, at every token after [SEP]: the mean of its index."""
    after = _observe(setting).trace.resid[1, :, setting.t :]
    return float(np.abs(after).argmax(axis=-1).mean())


def _outlier_doubt(setting: Setting) -> float:
    """0 where the least tag exceeds X; elsewhere nothing is claimed."""
    lower = bounds.tag_bounds(setting.T, setting.t, setting.X, s_tag=setting.s_tag).lower
    return 0.0 if lower[setting.t :].min() > setting.X + rounding_of_tags(setting) else 1.0


def _distance_from_uniform(setting: Setting) -> float:
    """Release: A2[T, .] is uniform after [SEP] and 0 elsewhere, in total variation."""
    row = _observe(setting).trace.pattern[1, :, 0, -1]
    uniform = np.where(np.arange(setting.T) < setting.t, 0.0, 1 / (setting.T - setting.t))
    return float(np.abs(row - uniform).sum(axis=1).max() / 2)


def _distance_bound(setting: Setting) -> float:
    bound = bounds.readout_bound(setting.T, setting.t, setting.X, **_at(setting))
    return bound + rounding_of_weights(setting)


def _rank_v1(setting: Setting) -> float:
    """W_V1, which writes the tag, has rank one."""
    return float(np.linalg.matrix_rank(theorem_weights(*_at(setting).values()).W_V1))


def _rank_qk(setting: Setting) -> float:
    """W_Q2 W_K2^T, which reads the tag, has rank one."""
    weights = theorem_weights(*_at(setting).values())
    return float(np.linalg.matrix_rank(np.asarray(weights.W_Q2) @ np.asarray(weights.W_K2).T))


def _zero(setting: Setting) -> float:
    return 0.0


def _one(setting: Setting) -> float:
    return 1.0


CLAIMS: dict[str, Claim] = {
    "limit": Claim(_error, _zero, _error_bound),
    "sink": Claim(_least_sink, _one, _sink_defect),
    "tag": Claim(_least_tag, lambda setting: setting.s_tag - 1, _tag_defect),
    "no tag before": Claim(_tag_before, _zero, rounding_of_tags),
    "[SEP] erased": Claim(_tag_of_sep, _zero, _sep_defect),
    "outlier feature": Claim(_outlier_coordinate, _one, _outlier_doubt),
    "uniform readout": Claim(_distance_from_uniform, _zero, _distance_bound),
    "rank of W_V1": Claim(_rank_v1, _one, _zero),
    "rank of W_QK": Claim(_rank_qk, _one, _zero),
}
