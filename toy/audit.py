"""Where a float says that the mean is exact, and it is not.

The literal two-layer model of the theorem (W_V1 = diag(0, -1), W_Q2 W_K2^T = [[0, 0], [0, d]],
b = 0) in float32, bfloat16 and float64, with a softmax that subtracts its maximum and one that does
not, against `theorem.residual`. Three things are predicted, u the unit roundoff and M the greatest
number of a format:

    tags agree to the last bit      from s = 1 + X^2 + log(T-1) + log(1/u) or so, whatever x is
    exp(score) overflows            where s^2 > log M (row of [SEP]), or q max_j tau_j > log M
    the score itself overflows      where s^2 > M, or q max_j tau_j > M

Scores are at most s^2 in layer 1 ([SEP] with itself) and q tau_j in layer 2. docs/floats.md has
the reasons and what was measured.
"""

from collections.abc import Callable
from functools import lru_cache
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
SOFTMAXES: tuple[Softmax, ...] = ("shifted", "naive")


class Truth(NamedTuple):
    """What the exact model does: inputs, weights, and at each scale f - m and df/ds."""

    x: Float[np.ndarray, "case seq"]
    t: int
    d: float
    s_tag: Float[np.ndarray, " scale"]
    error: Float[np.ndarray, "scale case"]
    slope: Float[np.ndarray, "scale case"]


class Audit(NamedTuple):
    """One format and one softmax, the same inputs at every scale.

    Errors are the largest over the inputs; df/ds is of the input where it is steepest. `reported`
    is |f - m| with m rounded to the format: 0 means that no better answer exists in it, NaN that
    there is none.
    """

    format: Format
    softmax: Softmax
    d: float
    s_tag: Float[np.ndarray, " scale"]
    true: Float[np.ndarray, " scale"]
    reported: Float[np.ndarray, " scale"]
    identical: Bool[np.ndarray, " scale"]  # all tags after [SEP] agree to the last bit
    slope: Float[np.ndarray, " scale"]
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
    def flat_from(self) -> float:
        """The first scale from which on df/ds is exactly 0: nothing can be learned any more."""
        return _from(self.s_tag, self.slope_reported == 0)

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


def saturation_scale(T: int, X: float, format: Format, softmax: Softmax = "shifted") -> float:
    """1 + X^2 + log(T - 1) + log(1/u): above it r_i <= u, and 1 + r_i rounds to 1.

    log 2 more where a naive softmax adds r_i e^s to e^s, whose half spacing may be u e^s / 2, and
    in bfloat16, which is compiled to divide in float32 and round 1 / (1 + r_i) afterwards. Scores
    and exponentials are rounded too, by at most 2 u (1 + X^2) + 4 u in the exponent. NaN for a
    naive softmax in bfloat16, whose exponentials and sum are rounded apart: nothing is derived.
    """
    if softmax == "naive" and format == "bfloat16":
        return float("nan")
    u = unit_roundoff(format)
    room = 2 * u * (1 + X * X) + 4 * u
    if softmax == "naive" or format == "bfloat16":
        room += np.log(2)
    return float(1 + X * X + np.log(T - 1) - np.log(u) + room)


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
    """The nearest numbers of 8 significant bits, which every format here holds exactly."""
    mantissa, exponent = np.frexp(np.asarray(values, dtype=np.float64))
    return np.asarray(np.ldexp(np.rint(mantissa * 256) / 256, exponent))


@lru_cache
def _model(kind: Softmax, t: int) -> Callable[..., tuple[Array, Array, Array]]:
    """x, s, d -> outputs, tags and df/ds, compiled once a format and shape."""

    def both(x: Array, s: Array, d: Array) -> tuple[Array, Array, Array]:
        (f, tags), (slope, _) = jax.jvp(
            lambda scale: literal(x, scale, d, t, kind), (s,), (jnp.ones_like(s),)
        )
        return f, tags, slope

    return jax.jit(both)


def truth(
    x: Float[np.ndarray, "case seq"],
    t: int,
    s_tag: Float[np.ndarray, " scale"],
    d: float = 1.0,
) -> Truth:
    """f - m by `theorem.residual`, df/ds by its central difference, as m does not depend on s.

    x, s_tag and d must have 8 significant bits (see `rounded`), so that all formats are asked
    the same question. Raises `Refused` if they are not, else as `theorem.residual`.
    """
    for name, values in (("x", x), ("s_tag", s_tag), ("d", np.asarray(d))):
        if not np.array_equal(rounded(values), values):
            raise Refused(
                f"{name} holds numbers of more bits than bfloat16 has: pass them through `rounded`"
            )
    error, slope = [], []
    for s in s_tag:
        step = 1e-5 * (s - 1)
        low, middle, high = (
            theorem.residual(x, t, s_tag=float(s + h), d=d) for h in (-step, 0.0, step)
        )
        error.append(middle)
        slope.append((high - low) / (2 * step))
    return Truth(x, t, d, s_tag, np.stack(error), np.stack(slope))


def audit(exact: Truth, format: Format = "float32", softmax: Softmax = "shifted") -> Audit:
    """What one format reports at each scale, beside the truth."""
    dtype = jnp.dtype(format)
    with jax.enable_x64(format == "float64"):
        model = _model(softmax, exact.t)
        x, s_tag, d = (jnp.asarray(v, dtype=dtype) for v in (exact.x, exact.s_tag, exact.d))
        mean = jnp.asarray(exact.x[:, exact.t :].mean(axis=1), dtype=dtype)
        seen = [model(x, s, d) for s in s_tag]
    outputs, tags, slopes = (
        np.stack([np.asarray(value).astype(np.float64) for value in column])
        for column in zip(*seen, strict=True)
    )
    after = tags[:, :, exact.t :]
    steepest = np.arange(len(slopes)), np.abs(exact.slope).argmax(axis=1)
    return Audit(
        format=format,
        softmax=softmax,
        d=exact.d,
        s_tag=exact.s_tag,
        true=np.abs(exact.error).max(axis=1),
        reported=np.abs(outputs - np.asarray(mean).astype(np.float64)).max(axis=1),
        identical=(after == after[:, :, :1]).all(axis=(1, 2)),
        slope=exact.slope[steepest],
        slope_reported=slopes[steepest],
        floor=unit_roundoff(format) * float(np.abs(exact.x).max()),
    )
