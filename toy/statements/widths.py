"""The same mechanism in any width: rank-one weights, other coordinates, and 1/sqrt(d_head).

With orthonormal u, v, embeddings x_i u - v + z_i and -s v for [SEP], z_i orthogonal to both,
W_V1 = -v v^T, W_Q2 W_K2^T = (b u + d v) v^T, W_V2 = u: the output is that of the theorem with
scores x_i x_k + z_i z_k. For z = 0 it is the same function; for |z_i| <= Z Theorem B holds with
X^2 + Z^2 instead of X^2 in rho and rho_0. Scores divided by k = sqrt(d_head) give
rho = (T-1) e^{(1+X^2-s)/k}, rho_0 = (1 + (t-1) e^{-X^2/k}) e^{(1-s)/k}, b/k and d/k.
"""

import numpy as np
from jaxtyping import Float

from toy.statements import cases, literal, release
from toy.statements.alternatives import misses
from toy.statements.cases import Setting, over
from toy.statements.claim import Claim


def error_bound(at: Setting, power: float, temper: float = 1.0) -> float:
    """2 X tanh(Delta/4) + X leak(t-1, 1, L) for scores within `power` of those between zeros.

    `temper` divides the scores of both layers. Theorem B's setting has X^2 and 1.
    Raises `NonPositiveQuery` unless q_lo > 0.
    """
    crowds = release.crowds(at.T, at.t, power / temper, (at.s_tag - 1) / temper)
    rates = release.rates(crowds, at.X, at.s_tag - 1, at.b / temper, at.d / temper)
    return float(release.error_bound(at.X, at.T - at.t, at.t - 1, 1, *rates))


def wide_model(
    u: Float[np.ndarray, " d_model"], v: Float[np.ndarray, " d_model"], b: float, d: float
) -> literal.Model:
    """Layer 1 scores plain inner products; every other matrix has rank one."""
    return literal.Model(np.eye(len(u)), -np.outer(v, v), np.outer(b * u + d * v, v), u[:, None])


def _axes(rng: np.random.Generator, d_model: int) -> Float[np.ndarray, "d_model d_model"]:
    """A random orthonormal basis, as rows."""
    return np.linalg.qr(rng.normal(size=(d_model, d_model)))[0]


def guarded(rng: np.random.Generator, X: float, power: float, temper: float = 1.0) -> Setting:
    """A setting whose guaranteed query is positive at this power and temper."""
    T, t = cases.shape(rng)
    s = float(1 + power + temper * (np.log(T) + rng.uniform(0, 14)))
    # Logits between 2 and 60: a larger contrast is lost in the rounding of the literal model.
    d = float(np.exp(rng.uniform(np.log(2), np.log(60)))) * temper / (s - 1) ** 2
    low = d * (s - 1) / (1 + (T - 1) * np.exp((1 + power - s) / temper))
    return Setting(T, t, X, s, float(rng.uniform(-0.9, 0.9) * low / X * rng.integers(2)), d)


def same_function(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """|f at d_model = D - f at d_model = 2| over the rounding of both literal passes."""
    found = []
    for size in cases.groups(n):
        X, d_model = cases.magnitude(rng), int(rng.integers(2, 33))
        at = guarded(rng, X, X * X)
        basis = _axes(rng, d_model)
        u, v = basis[:2]
        x = cases.inputs(rng, at.T, at.t, at.X, size)
        e = x[..., None] * u - v
        e[:, at.t - 1] = -at.s_tag * v
        seen = literal.run(wide_model(u, v, at.b, at.d), e)
        narrow = literal.run(literal.theorem_model(*at[3:]), literal.embed(x, at.t, at.s_tag))
        # u and v are orthonormal only to `skew`, which enters every product as a rounding does.
        skew = np.abs(basis @ basis.T - np.eye(d_model)).max() / literal.UNIT
        room = (1 + skew) * seen.rounding_output + narrow.rounding_output
        found.append(over(np.abs(seen.output[:, -1] - narrow.output[:, -1])[:, 0], room))
    return np.concatenate(found)


def other_coordinates(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """|f - m| over Theorem B with X^2 + Z^2, each token with other coordinates of norm <= Z."""
    found = []
    for size in cases.groups(n):
        d_model, Z = int(rng.integers(3, 17)), float(rng.uniform(0, 1.5))
        X = cases.magnitude(rng)
        at = guarded(rng, X, X * X + Z * Z)
        basis = _axes(rng, d_model)
        u, v = basis[:2]
        x = cases.inputs(rng, at.T, at.t, X, size)
        z = rng.normal(size=(size, at.T, d_model - 2))
        same = np.broadcast_to(z[:, :1], z.shape)
        z = np.where(rng.integers(0, 2, (size, 1, 1)), z, same)  # alike: the rows are crowded
        z = Z * z / np.linalg.norm(z, axis=-1, keepdims=True)
        e = x[..., None] * u - v + z @ basis[2:]
        e[:, at.t - 1] = -at.s_tag * v
        seen = literal.run(wide_model(u, v, at.b, at.d), e)
        found.append(misses(seen, x, at.t, error_bound(at, X * X + Z * Z), X))
    return np.concatenate(found)


def tempered(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """|f - m| over its bound, scores divided by sqrt(d_head)."""
    found = []
    for size in cases.groups(n):
        temper, X = float(np.sqrt(rng.integers(1, 65))), cases.magnitude(rng)
        at = guarded(rng, X, X * X, temper)
        x = cases.inputs(rng, at.T, at.t, X, size)
        model = literal.theorem_model(at.s_tag, at.b / temper, at.d / temper)
        model = model._replace(QK1=np.eye(2) / temper)
        seen = literal.run(model, literal.embed(x, at.t, at.s_tag))
        found.append(misses(seen, x, at.t, error_bound(at, X * X, temper), X))
    return np.concatenate(found)


CLAIMS = {
    "any d_model": Claim("f with rank-one weights = f of the theorem", "Any width", same_function),
    "other coordinates": Claim(
        "|f - m| <= Theorem B with X^2 + Z^2 in rho and rho_0", "Any width", other_coordinates
    ),
    "1/sqrt(d_head)": Claim(
        "|f - m| <= Theorem B with exponents and (b, d) over sqrt(d_head)", "Any width", tempered
    ),
}
