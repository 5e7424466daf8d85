"""Where a float says that the mean is exact, and it is not.

The literal two-layer model of the theorem (W_V1 = diag(0, -1), W_Q2 W_K2^T = [[0, 0], [0, d]],
b = 0) in float32, bfloat16 and float64, with a softmax that subtracts its maximum and one that does
not, against `theorem.residual`. Three things are predicted, u the unit roundoff and M the greatest
number of a format:

    tags agree to the last bit      from s = 1 + X^2 + log(T-1) + log(1/u) on, whatever x is
    exp(score) overflows            where s^2 > log M (row of [SEP]), or q max_j tau_j > log M
    the score itself overflows      where s^2 > M, or q max_j tau_j > M

Scores are at most s^2 in layer 1 ([SEP] with itself) and q tau_j in layer 2.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from toy import theorem
from toy.errors import Refused

Format = Literal["bfloat16", "float32", "float64"]
FORMATS: tuple[Format, ...] = ("bfloat16", "float32", "float64")
Softmax = Literal["shifted", "naive"]


class Audit(NamedTuple):
    """One format, one softmax, one d, the same inputs at every scale.

    Errors and gradients are the largest over the inputs. `reported` is |f - m| with m rounded to
    the format: 0 means that no better answer exists in it, NaN that there is none.
    """

    format: Format
    softmax: Softmax
    d: float
    s_tag: Float[np.ndarray, " scale"]
    true: Float[np.ndarray, " scale"]
    reported: Float[np.ndarray, " scale"]
    identical: Bool[np.ndarray, " scale"]  # all tags after [SEP] agree to the last bit
    slope: Float[np.ndarray, " scale"]  # df/ds, exactly
    slope_reported: Float[np.ndarray, " scale"]
    floor: float  # u X: one rounding of the mean

    @property
    def dishonesty(self) -> Float[np.ndarray, " scale"]:
        """True over reported error; a report below one rounding of the mean counts as that."""
        return self.true / np.maximum(self.reported, self.floor)

    @property
    def identical_from(self) -> float:
        """The first scale from which on tags agree to the last bit; NaN if they never do."""
        return _from(self.s_tag, self.identical)

    @property
    def lost_from(self) -> float:
        """The first scale from which on the model answers NaN; NaN if it never does."""
        return _from(self.s_tag, np.isnan(self.reported))

    @property
    def blind_from(self) -> float:
        """The first scale from which on no digit of df/ds is right; NaN if some always is."""
        off = np.abs(self.slope_reported - self.slope)
        return _from(self.s_tag, ~(off < np.abs(self.slope)))


def _from(s_tag: Float[np.ndarray, " scale"], holds: Bool[np.ndarray, " scale"]) -> float:
    fails = np.flatnonzero(~holds)
    first = fails[-1] + 1 if len(fails) else 0
    return float(s_tag[first]) if first < len(s_tag) else float("nan")


def unit_roundoff(format: Format) -> float:
    """u: half the distance from 1 to the next number of the format."""
    return float(jnp.finfo(format).eps) / 2


def saturation_scale(T: int, X: float, format: Format) -> float:
    """1 + X^2 + log(T - 1) + log(1/u): above it every r_i is below u, and 1 + r_i rounds to 1."""
    return float(1 + X * X + np.log(T - 1) - np.log(unit_roundoff(format)))


def overflow_scale(
    x: Float[np.ndarray, "case seq"], t: int, d: float, format: Format, softmax: Softmax
) -> float:
    """The least s at which a score exceeds what the format, or its exponential, can hold.

    Bisection on max(s^2, max_j q tau_j), which grows with s. Raises as `theorem.tag`.
    """
    limit = float(jnp.finfo(format).max)
    limit = np.log(limit) if softmax == "naive" else limit

    def too_large(s: float) -> bool:
        tags = theorem.tag(x, t, s)
        with np.errstate(over="ignore"):
            release = d * tags[:, -1] * tags[:, t:].max(axis=1)
            return bool(max(s * s, release.max()) > limit)

    low, high = 1 + 1e-9, 1e160
    for _ in range(200):
        middle = float(np.sqrt(low) * np.sqrt(high))
        low, high = (low, middle) if too_large(middle) else (middle, high)
    return high


def _softmax(
    scores: Float[Array, "case query key"], kind: Softmax
) -> Float[Array, "case query key"]:
    seen = np.tri(scores.shape[-1], dtype=bool)[None]
    scores = jnp.where(seen, scores, -jnp.inf)
    if kind == "shifted":
        scores = scores - scores.max(axis=-1, keepdims=True)
    each = jnp.exp(scores)
    return each / each.sum(axis=-1, keepdims=True)


def literal(
    x: Float[Array, "case seq"], s_tag: Float[Array, ""], d: Float[Array, ""], t: int, kind: Softmax
) -> tuple[Float[Array, " case"], Float[Array, "case seq"]]:
    """The output and the tags of the model as written, in the dtype of its arguments."""
    sep = (np.arange(x.shape[1]) == t - 1)[None]
    number = jnp.where(sep, jnp.zeros_like(x), x)
    mark = jnp.where(sep, -s_tag, -jnp.ones_like(s_tag))
    embedding = jnp.stack([number, jnp.broadcast_to(mark, x.shape)], axis=-1)
    pattern = _softmax(jnp.einsum("bqi,bki->bqk", embedding, embedding), kind)
    tags = embedding[..., 1] - jnp.einsum("bqk,bk->bq", pattern, embedding[..., 1])
    release = _softmax((d * tags)[:, :, None] * tags[:, None, :], kind)
    return jnp.einsum("bk,bk->b", release[:, -1], number), tags


def rounded(values: Float[np.ndarray, "*any"] | float) -> Float[np.ndarray, "*any"]:
    """The nearest bfloat16 numbers, which every format here holds exactly."""
    return np.asarray(jnp.asarray(values, dtype=jnp.bfloat16)).astype(np.float64)


def _model(format: Format, kind: Softmax, t: int) -> Callable[..., tuple[Array, Array, Array]]:
    """x, s, d -> outputs, tags and df/ds, compiled."""

    def both(x: Array, s: Array, d: Array) -> tuple[Array, Array, Array]:
        (f, tags), (slope, _) = jax.jvp(
            lambda scale: literal(x, scale, d, t, kind), (s,), (jnp.ones_like(s),)
        )
        return f, tags, slope

    return jax.jit(both)


def _true_slope(x: Float[np.ndarray, "case seq"], t: int, s: float, d: float) -> np.ndarray:
    """df/ds by a central difference of the residual, whose m does not depend on s."""
    step = 1e-5 * (s - 1)
    high, low = (theorem.residual(x, t, s_tag=s + h, d=d) for h in (step, -step))
    return (high - low) / (2 * step)


def audit(
    x: Float[np.ndarray, "case seq"],
    t: int,
    scales: Sequence[float],
    *,
    d: float = 1.0,
    format: Format = "float32",
    softmax: Softmax = "shifted",
) -> Audit:
    """What one format reports of the error at each scale, beside the truth.

    x, the scales and d must be bfloat16 numbers (see `rounded`), so that all formats are asked the
    same question. Raises `Refused` if they are not, else as `theorem.residual`.
    """
    for name, values in (("x", x), ("scales", np.asarray(scales)), ("d", np.asarray(d))):
        if not np.array_equal(rounded(values), values):
            raise Refused(f"{name} holds numbers that bfloat16 rounds: pass them through `rounded`")
    true = [theorem.residual(x, t, s_tag=s, d=d) for s in scales]
    slopes = [_true_slope(x, t, s, d) for s in scales]
    mean = x[:, t:].mean(axis=1)
    with jax.enable_x64(format == "float64"):
        dtype = jnp.dtype(format)
        model = _model(format, softmax, t)
        cast = jnp.asarray(x, dtype=dtype)
        wanted = np.asarray(jnp.asarray(mean, dtype=dtype), dtype=np.float64)
        seen = [model(cast, jnp.asarray(s, dtype=dtype), jnp.asarray(d, dtype)) for s in scales]
    outputs, tags, found = (
        np.stack([np.asarray(v).astype(np.float64) for v in column])
        for column in zip(*seen, strict=True)
    )
    after = tags[:, :, t:]
    pick = np.abs(slopes).argmax(axis=1)
    rows = np.arange(len(pick))
    return Audit(
        format=format,
        softmax=softmax,
        d=d,
        s_tag=np.asarray(scales, dtype=np.float64),
        true=np.abs(true).max(axis=1),
        reported=np.abs(outputs - wanted).max(axis=1),
        identical=(after == after[:, :, :1]).all(axis=(1, 2)),
        slope=np.asarray(slopes)[rows, pick],
        slope_reported=found[rows, pick],
        floor=unit_roundoff(format) * float(np.abs(x).max()),
    )
