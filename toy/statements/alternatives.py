"""What averaging does not need: working models without the paper's outliers, sink or sign of d.

C1  layer 1 scores tags, g tau tau', instead of x x' + tau tau': s = 2 is enough, for all real x.
C2  layer 1 attends evenly and a clipped MLP reads the tag 1/i: no sink, no activation above 2.
C3  w = c/(s-1), c > 1: every tag but [SEP]'s stays below max(1, c - 1 + c/(s-1)) for every s.
C4  w = c/(s-1), c < 1, d < 0: the tokens after [SEP] have smaller tags than those before it.

C3 and C4 are members of family F, bounded by `gauge.error_bound`; C1 and C2 have bounds of their
own. Each is run as the literal two-layer model.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from toy.logs import ROUNDING
from toy.statements import cases, family, gauge, literal, release
from toy.statements.cases import over
from toy.statements.claim import Claim
from toy.statements.family import Theta
from toy.statements.gauge import Gauge

READ_NUMBER = np.array([[1.0], [0.0]])


def misses(
    found: literal.Pass, x: Float[np.ndarray, "case seq"], t: int, bound: float, X: float
) -> Float[np.ndarray, " case"]:
    """|f - m| / bound in the literal model, less its rounding."""
    error = np.abs(found.output[:, -1, 0] - x[:, t:].mean(axis=1))
    return over(error, bound, found.rounding_output + (x.shape[1] + 2) * literal.UNIT * X)


def gain_model(gain: float, d: float) -> literal.Model:
    """C1: W_Q1 W_K1^T = diag(0, g), the rest as in the theorem with b = 0."""
    return literal.theorem_model(2.0, 0.0, d)._replace(QK1=np.diag([0.0, gain]))


def gain_bound(T: int, t: int, X: float, gain: float, d: float) -> float:
    """C1: r_i = (i-1) e^{-g} whatever x is, so that rho = (T-1) e^{-g}, rho_0 = t e^{-g}.

    |f - m| <= 2 X tanh(Delta/4) + X leak(t-1, 1, L), Delta = d/(1+rho_0) (rho/(1+rho) -
    rho_0/(1+rho_0)), L = d/(1+rho)^2, with X = max |x| of the input: uniform over all of R^T.
    Raises `NonPositiveQuery` unless d > 0.
    """
    rates = release.rates(release.crowds(T, t, 0.0, gain), X, 1.0, 0.0, d)
    return float(release.error_bound(X, T - t, t - 1, 1, *rates))


def _gains(rng: np.random.Generator, n: int, size_only: bool) -> Float[np.ndarray, " case"]:
    found = []
    for size in cases.groups(n):
        T, t = cases.shape(rng)
        X = float(10 ** rng.uniform(-1, 2))
        gain, d = rng.uniform(1, 30), rng.uniform(1, 30)
        x = cases.inputs(rng, T, t, X, size)
        passed = literal.run(gain_model(gain, d), literal.embed(x, t, 2.0))
        tags = np.abs(passed.stream[..., 1]).max(axis=1)
        if size_only:
            found.append(over(tags, 1.0, passed.rounding_stream))
        else:
            found.append(misses(passed, x, t, gain_bound(T, t, X, gain, d), X))
    return np.concatenate(found)


def layer_1_gain(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """C1: |f - m| over its bound, for numbers up to 100."""
    return _gains(rng, n, size_only=False)


def layer_1_gain_size(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """C1: the largest tag after layer 1 over 1."""
    return _gains(rng, n, size_only=True)


def clipped(slope: float) -> literal.Between:
    """clip(K tau) - clip(K (tau - 3/4)) on the tag, clip to [0, 1]: 1 on [1/K, 3/4], else 0.

    The second clip is 1 from 3/4 + 1/K on. [SEP] keeps its own mark through the residual stream,
    tau_t = 1 + 1/t, and is cut out there.
    """

    def apply(stream: np.ndarray) -> np.ndarray:
        tag = stream[..., 1]
        flag = np.clip(slope * tag, 0, 1) - np.clip(slope * (tag - 0.75), 0, 1)
        return np.stack([stream[..., 0], flag], axis=-1)

    return literal.Between(apply, max(slope, 1.0))


def even_model(contrast: float) -> literal.Model:
    """C2: no scores in layer 1, which writes how much of [SEP] it saw; logits L after the MLP."""
    return literal.Model(
        np.zeros((2, 2)), np.diag([0.0, 1.0]), np.diag([0.0, contrast]), READ_NUMBER
    )


def even_bound(T: int, t: int, X: float, contrast: float) -> float:
    """C2: |f - m| <= (2t-1) X / (t + n e^L), attained at X before [SEP], -X after it."""
    return X * (2 * t - 1) / (t + (T - t) * np.exp(contrast))


def _evens(rng: np.random.Generator, n: int, size_only: bool) -> Float[np.ndarray, " case"]:
    found = []
    for size in cases.groups(n):
        T, t = cases.shape(rng)
        X, contrast = rng.uniform(0.1, 2.0), rng.uniform(0, 22)
        x = cases.inputs(rng, T, t, X, size)
        e = np.stack([x, np.zeros_like(x)], axis=-1)
        e[:, t - 1, 1] = 1.0
        passed = literal.run(even_model(contrast), e, clipped(max(T, 4)))
        sink = passed.pattern_1[:, t:, t - 1].max(axis=1) * (t + 1)
        largest = np.maximum(sink, np.abs(passed.stream).max(axis=(1, 2)) / 2)
        if size_only:
            found.append(largest / (1 + 8 * literal.UNIT))
        else:
            found.append(misses(passed, x, t, even_bound(T, t, X, contrast), X))
    return np.concatenate(found)


def even_attention(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """C2: |f - m| over its bound."""
    return _evens(rng, n, size_only=False)


def even_attention_size(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """C2: the attention to [SEP] after it over 1/(t+1), and what the MLP leaves over 2 (X <= 2)."""
    return _evens(rng, n, size_only=True)


def _gauge_misses(
    at: Gauge, x: Float[np.ndarray, "case seq"], passed: literal.Pass
) -> Float[np.ndarray, " case"]:
    """|f - m| over its bound, exactly and in the literal model."""
    M = np.array([[0.0, at.b], [0.0, at.d]])
    theta = Theta(np.array([at.s_tag]), np.array([at.w]), M[None])
    bound = gauge.error_bound(at)
    # The guaranteed query may be a small difference of tags, which a float rounds first.
    parts = abs(at.d) * (abs(at.w - 1) + at.w * (at.s_tag - 1)) + abs(at.b) * at.X
    room = ROUNDING + 64 * literal.UNIT * parts * at.w * (at.s_tag - 1)
    exact = over(np.abs(family.residual(theta, x, (at.t,))[:, 0]), bound) / (1 + room)
    return np.maximum(exact, misses(passed, x, at.t, bound, at.X))


def _gauges(
    rng: np.random.Generator,
    n: int,
    draw: Callable[[np.random.Generator], Gauge],
    size: Callable[[Gauge], Float[np.ndarray, " seq"]] | None = None,
) -> Float[np.ndarray, " case"]:
    """Errors over their bound, or tags over theirs, wherever the guaranteed query is positive."""
    found = []
    while sum(map(len, found)) < n:
        at = draw(rng)
        if gauge.ends(at).query_low <= 0:
            continue
        x = cases.inputs(rng, at.T, at.t, at.X)
        model = literal.theorem_model(at.s_tag, at.b, at.d, at.w)
        passed = literal.run(model, literal.embed(x, at.t, at.s_tag))
        if size is None:
            found.append(_gauge_misses(at, x, passed))
        else:
            tags = np.abs(passed.stream[..., 1])
            most = size(at) * (1 + ROUNDING)
            found.append(cases.worst(over(tags, most, passed.rounding_stream[:, None])))
    return np.concatenate(found)


def _drawn(rng: np.random.Generator, X: float, s_tag: float, w: float, d: float) -> Gauge:
    """With a b that leaves some of the query, in half of the cases."""
    T, t = cases.shape(rng)
    pull = abs(d * (w * s_tag - 1))
    return Gauge(T, t, X, s_tag, w, float(rng.uniform(-0.9, 0.9) * pull / X * rng.integers(2)), d)


def _scales(rng: np.random.Generator) -> tuple[float, float]:
    X = cases.magnitude(rng)
    return X, float(1 + X * X + rng.uniform(0.1, 30))


def _any(rng: np.random.Generator) -> Gauge:
    X, s_tag = _scales(rng)
    w, size = np.exp(1.5 * rng.normal(size=2))
    return _drawn(rng, X, s_tag, float(w), float(np.sign(w * s_tag - 1) * size))


def _bounded(rng: np.random.Generator) -> Gauge:
    X, s_tag = _scales(rng)
    w = rng.uniform(1.1, 4) / (s_tag - 1)
    return _drawn(rng, X, s_tag, w, float(rng.uniform(1, 40)))


def _negative(rng: np.random.Generator) -> Gauge:
    X, s_tag = _scales(rng)
    w = rng.uniform(0.05, 0.95) / s_tag
    return _drawn(rng, X, s_tag, w, -float(rng.uniform(10, 400)))


def any_w(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """|f - m| over its bound, for any w > 0 and d of the sign that the tag has."""
    return _gauges(rng, n, _any)


def any_w_size(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """Every tag over `gauge.largest_tag`."""
    return _gauges(rng, n, _any, gauge.largest_tag)


def bounded_tags(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """C3: |f - m| over its bound."""
    return _gauges(rng, n, _bounded)


def bounded_tags_size(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """C3: |tau_j| over max(1, c - 1 + c/(s-1)), c = w (s-1), everywhere but at [SEP]."""
    return _gauges(rng, n, _bounded, lambda at: _but_sep(at, max(1.0, at.w * at.s_tag - 1)))


def negative_d(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """C4: |f - m| over its bound."""
    return _gauges(rng, n, _negative)


def negative_d_size(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """C4: |tau_j| over 1 - w, the tag before [SEP], everywhere but at [SEP]."""
    return _gauges(rng, n, _negative, lambda at: _but_sep(at, 1 - at.w))


def _but_sep(at: Gauge, most: float) -> Float[np.ndarray, " seq"]:
    return np.where(np.arange(1, at.T + 1) == at.t, np.inf, most)


CLAIMS = {
    "any w": Claim("|f - m| <= 2X tanh(Delta/4) + X leak for any w > 0", "Any w > 0", any_w),
    "any w, tags": Claim("|tau_j| <= max |w - 1|, |tau_-|, |tau_+|", "Any w > 0", any_w_size),
    "C1: gain in layer 1": Claim(
        "|f - m| <= max|x| (2 tanh(Delta/4) + leak), Delta ~ d (T-1) e^-g, for all real x",
        "C1",
        layer_1_gain,
    ),
    "C1: size": Claim("|tau_j| <= 1 with s = 2", "C1", layer_1_gain_size),
    "C2: no sink": Claim("|f - m| <= (2t-1) X / (t + n e^L)", "C2", even_attention),
    "C2: size": Claim("A1[i, t] <= 1/(t+1) after [SEP], |h| <= 2", "C2", even_attention_size),
    "C3: bounded tags": Claim("|f - m| <= its bound at w = c/(s-1), c > 1", "C3", bounded_tags),
    "C3: size": Claim("|tau_j| <= max(1, c - 1 + c/(s-1)), j != t", "C3", bounded_tags_size),
    "C4: negative d": Claim("|f - m| <= its bound at w < 1/s, d < 0", "C4", negative_d),
    "C4: size": Claim("|tau_j| <= 1 - w = |tau before [SEP]|, j != t", "C4", negative_d_size),
}
