"""Theorem B and its companions, measured in the closed form and in the literal transformer.

Each function draws settings and inputs and returns measured / proved, so that the statement of
docs/theory.md with the same name holds where no ratio exceeds 1.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy import bounds, theorem
from toy.logs import ROUNDING, quiet
from toy.statements import cases, literal, release
from toy.statements.cases import Setting, over
from toy.statements.claim import Claim
from toy.transformer import theorem_weights


class Seen(NamedTuple):
    """One setting, its inputs, and what the literal transformer made of them."""

    at: Setting
    x: Float[np.ndarray, "case seq"]
    found: literal.Pass

    @property
    def tags(self) -> Float[np.ndarray, "case seq"]:
        """Coordinate 1 after layer 1."""
        return self.found.stream[..., 1]


def observe(rng: np.random.Generator, n: int) -> Iterator[Seen]:
    """At least n inputs, a group for each random setting."""
    for size in cases.groups(n):
        at = cases.setting(rng)
        x = cases.inputs(rng, at.T, at.t, at.X, size)
        yield Seen(at, x, run(at, x))


def run(at: Setting, x: Float[np.ndarray, "case seq"]) -> literal.Pass:
    """The literal transformer with the theorem's weights."""
    weights = theorem_weights(at.s_tag, at.b, at.d)
    model = literal.Model(
        np.eye(2),
        np.asarray(weights.W_V1),
        np.asarray(weights.W_Q2) @ np.asarray(weights.W_K2).T,
        np.asarray(weights.W_V2),
    )
    return literal.run(model, literal.embed(x, at.t, at.s_tag))


def _each(
    rng: np.random.Generator, n: int, ratio: Callable[[Seen], Float[np.ndarray, "case ..."]]
) -> Float[np.ndarray, " case"]:
    """The largest of an input's ratios, for each input."""
    return np.concatenate([cases.worst(ratio(seen)) for seen in observe(rng, n)])


def _error(seen: Seen, bound: float) -> Float[np.ndarray, "case 2"]:
    """|f - m| / bound, twice: exactly, and as the literal transformer computes it."""
    at, f = seen.at, seen.found.output[:, -1, 0]
    exact = np.abs(theorem.residual(seen.x, at.t, **at.at))
    room = bounds.relative_rounding(at.X, s_tag=at.s_tag, b=at.b)
    reported = np.abs(f - seen.x[:, at.t :].mean(axis=1))
    own = seen.found.rounding_output + (at.T + 2) * literal.UNIT * at.X
    return np.stack([over(exact, bound) / (1 + room), over(reported, bound, own)], axis=1)


def limit(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """|f - m| over Theorem B."""
    return _each(rng, n, lambda seen: _error(seen, bounds.error_bound(*seen.at[:3], **seen.at.at)))


def simple_bound(at: Setting) -> float:
    """(X/2)(T-1)(s-1)(d(s-1) + |b|X) e^{1+X^2-s} + X (2t-1)/n e^{-L}; infinite where it overflows.

    The corollary of Theorem B. Raises `NonPositiveQuery` unless q_lo > 0.
    """
    gain, contrast = at.s_tag - 1, _rates(at).contrast
    rho = release.crowds(at.T, at.t, at.X**2, gain).rho
    uneven = at.X / 2 * gain * (at.d * gain + abs(at.b) * at.X) * rho
    return float(uneven + at.X * (2 * at.t - 1) / (at.T - at.t) * np.exp(-contrast))


def corollary(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """|f - m| over the one-line bound."""
    return _each(rng, n, lambda seen: _error(seen, simple_bound(seen.at)))


def sink(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """1 - A1[i, t] = r_i / (1 + r_i) against both of its ends, after [SEP]."""

    def ratio(seen: Seen) -> Float[np.ndarray, "case n side"]:
        at = seen.at
        numbers = np.delete(seen.found.pattern_1[:, at.t :], at.t - 1, axis=2)
        i = np.arange(at.t + 1, at.T + 1)
        most = (i - 1) * np.exp(1 + at.X**2 - at.s_tag)
        least = (1 + (i - 2) * np.exp(-(at.X**2))) * np.exp(1 - at.s_tag)
        room = 1 + seen.found.rounding_pattern_1[:, None] + 8 * literal.UNIT * at.s_tag
        high = over(numbers.sum(axis=-1), most / (1 + most)) / room
        low = over(least / (1 + least), numbers.sum(axis=-1)) / room
        return np.stack([high, low], axis=-1)

    return _each(rng, n, ratio)


def sink_of_sep(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """1 - A1[t, t] = (t-1) / (t-1 + e^{s(s-1)}), whatever x is: the distance over its rounding."""

    def ratio(seen: Seen) -> Float[np.ndarray, " case"]:
        at = seen.at
        missed = seen.found.pattern_1[:, at.t - 1, : at.t - 1].sum(axis=-1)
        proved = np.exp(-at.s_tag * (at.s_tag - 1))
        proved = (at.t - 1) * proved / (1 + (at.t - 1) * proved)
        room = seen.found.rounding_pattern_1 + 8 * literal.UNIT * at.s_tag**2
        return over(np.abs(missed - proved), proved * room)

    return _each(rng, n, ratio)


def tag(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """tau_i = (s - 1) A1[i, t] against both of its ends, after [SEP]."""

    def ratio(seen: Seen) -> Float[np.ndarray, "case n side"]:
        at, off = seen.at, seen.found.rounding_stream[:, None]
        lower, upper = (end[at.t :] for end in bounds.tag_bounds(*at[:3], s_tag=at.s_tag))
        found = seen.tags[:, at.t :]
        room = 1 + ROUNDING
        return np.stack([over(found, upper, off), over(lower, found + off)], axis=-1) / room

    return _each(rng, n, ratio)


def no_tag_before(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """tau_i = 0 before [SEP], exactly: the distance over the rounding of the pass."""
    return _each(
        rng, n, lambda s: over(np.abs(s.tags[:, : s.at.t - 1]).T, s.found.rounding_stream).T
    )


def sep_erased(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """-(s-1)(t-1) e^{-s(s-1)} <= tau_t <= 0: its size over that, less the rounding of the pass."""

    def ratio(seen: Seen) -> Float[np.ndarray, " case"]:
        at, off = seen.at, seen.found.rounding_stream
        most = (at.s_tag - 1) * (at.t - 1) * np.exp(-at.s_tag * (at.s_tag - 1))
        return over(np.abs(seen.tags[:, at.t - 1]), most + off)

    return _each(rng, n, ratio)


def outlier_feature(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """|h_i[0]| <= X / least tag * |h_i[1]| after [SEP]: the tag leads once it must exceed X."""

    def ratio(seen: Seen) -> Float[np.ndarray, "case n"]:
        at, off = seen.at, seen.found.rounding_stream[:, None]
        least = bounds.tag_bounds(*at[:3], s_tag=at.s_tag).lower[at.t :]
        numbers = np.abs(seen.found.stream[:, at.t :, 0])
        return over(numbers, at.X / least * (seen.tags[:, at.t :] + off)) / (1 + ROUNDING)

    return _each(rng, n, ratio)


def uniform_readout(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """The total variation of A2[T, .] from uniform after [SEP], over its bound."""

    def ratio(seen: Seen) -> Float[np.ndarray, " case"]:
        at = seen.at
        uniform = np.where(np.arange(at.T) < at.t, 0.0, 1 / (at.T - at.t))
        bound = bounds.readout_bound(*at[:3], **at.at)
        far = np.abs(seen.found.pattern_2[:, -1] - uniform).sum(axis=1) / 2
        room = bounds.relative_rounding(at.X, s_tag=at.s_tag, b=at.b)
        return over(far, bound * (1 + room), seen.found.rounding_pattern_2)

    return _each(rng, n, ratio)


def _rates(at: Setting) -> release.Rates:
    """Delta and L of Theorem B."""
    crowds = release.crowds(at.T, at.t, at.X**2, at.s_tag - 1)
    found = release.rates(crowds, at.X, at.s_tag - 1, at.b, at.d)
    return found if at.T - at.t > 1 else found._replace(unevenness=0.0)


def pointwise(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """Every weight of A2[T, .] against its ends."""

    def ratio(seen: Seen) -> Float[np.ndarray, "case 3"]:
        at, row = seen.at, theorem.readout(seen.x, seen.at.t, **seen.at.at)
        after, before = row[:, at.t :], row[:, : at.t]
        uneven, contrast = _rates(at)
        leak = at.t * np.exp(-contrast) / (at.t * np.exp(-contrast) + at.T - at.t)
        even = 1 / (at.T - at.t)
        with quiet():
            most, least = np.exp(uneven) * even, np.exp(-uneven) * (1 - leak) * even
        room = 1 + bounds.relative_rounding(at.X, s_tag=at.s_tag, b=at.b)
        sides = over(after, most), over(least, after), over(before, np.exp(-contrast) * even)
        return np.stack([cases.worst(side) for side in sides], axis=1) / room

    return _each(rng, n, ratio)


CLAIMS = {
    "limit": Claim("|f - m| <= 2X tanh(Delta/4) + (2t-1) X / (t-1 + n e^L)", "Theorem B", limit),
    "corollary": Claim(
        "|f - m| <= (X/2)(T-1)(s-1)(d(s-1) + |b|X) e^{1+X^2-s} + (X(2t-1)/n) e^-L",
        "Corollary",
        corollary,
    ),
    "sink": Claim(
        "1 - A1[i, t] = r_i / (1 + r_i), (1 + (i-2)e^{-X^2}) e^{1-s} <= r_i <= (i-1) e^{1+X^2-s}",
        "Sink",
        sink,
    ),
    "sink of [SEP]": Claim("1 - A1[t, t] = (t-1) / (t-1 + e^{s(s-1)})", "Sink", sink_of_sep),
    "tag": Claim("tau_i = (s-1) A1[i, t], between (s-1) times its ends", "Tag", tag),
    "no tag before": Claim("tau_i = 0 for i < t", "Tag", no_tag_before),
    "[SEP] erased": Claim("-(s-1)(t-1) e^{-s(s-1)} <= tau_t <= 0", "Tag", sep_erased),
    "outlier feature": Claim(
        "|x_i| <= tau_i X / min tau, so that coordinate 1 leads where min tau > X",
        "Tag",
        outlier_feature,
    ),
    "uniform readout": Claim(
        "TV(A2[T, .], uniform after [SEP]) <= P + (1-P) tanh(Delta/4), P = t / (t + n e^L)",
        "Read-out",
        uniform_readout,
    ),
    "each weight read out": Claim(
        "e^-Delta (1-P)/n <= A2[T, j] <= e^Delta / n for j > t, A2[T, j] <= e^-L / n for j <= t",
        "Read-out",
        pointwise,
    ),
}
