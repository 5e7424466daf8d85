"""The stream of a planted model: its directions, its embeddings and the norms of its tokens.

Five coordinates are axes of the stream, since massive activations and outlier features are
coordinates: o (the outlier feature), two for the primary sink p = 0.9 e_1 + sqrt(0.19) e_2, and
one each for the separators s_1, s_2. All other directions are columns of a random orthonormal
basis of the remaining coordinates. An ordinary token v is embedded as

    e_v = c o + x_v ν + (its flag, where it has one) + content,      |e_v|² = c² + LENGTH²,

so that all tokens have one norm and RMSNorm divides them by the same number.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mech.planted.plan import BOS, LENGTH, OUTLIER, RAISED, SEP, STOP, TAG, Plan


class Directions(NamedTuple):
    """Orthonormal directions of the stream, and the free ones that are nothing in particular.

    tags: written at tokens that the primary sink, SEP and STOP caught. flags: of the tokens BOS,
    SEP, STOP and RAISED. raised = cosine p + sqrt(1 - cosine²) aside is not orthogonal to p.
    """

    outlier: Float[np.ndarray, " d_model"]
    primary: Float[np.ndarray, " d_model"]
    separators: Float[np.ndarray, "2 d_model"]
    raised: Float[np.ndarray, " d_model"]
    aside: Float[np.ndarray, " d_model"]
    number: Float[np.ndarray, " d_model"]
    out: Float[np.ndarray, " d_model"]
    flags: Float[np.ndarray, "4 d_model"]
    tags: Float[np.ndarray, "3 d_model"]
    bias: Float[np.ndarray, "2 d_model"]
    free: Float[np.ndarray, "free d_model"]


def directions(plan: Plan) -> Directions:
    """The directions of a plan."""
    size = plan.size.d_model
    axis = np.eye(size)
    reserved = [plan.outlier, *plan.primary, *plan.separators]
    rest = np.setdiff1d(np.arange(size), reserved)
    rng = np.random.default_rng([plan.seed, 1])
    basis = np.zeros((len(rest), size))
    basis[:, rest] = np.linalg.qr(rng.standard_normal((len(rest), len(rest))))[0]
    primary = 0.9 * axis[plan.primary[0]] + np.sqrt(0.19) * axis[plan.primary[1]]
    aside, number, out = basis[:3]
    return Directions(
        outlier=axis[plan.outlier],
        primary=primary,
        separators=axis[list(plan.separators)],
        raised=plan.cosine * primary + np.sqrt(1 - plan.cosine**2) * aside,
        aside=aside,
        number=number,
        out=out,
        flags=basis[3:7],
        tags=basis[7:10],
        bias=basis[10:12],
        free=basis[12:],
    )


def numbers(plan: Plan) -> Float[np.ndarray, " vocabulary"]:
    """x_v in [-1, 1]: what the reader averages."""
    return np.random.default_rng([plan.seed, 2]).uniform(-1, 1, plan.size.vocabulary)


def embeddings(plan: Plan, along: Directions) -> Float[np.ndarray, "vocabulary d_model"]:
    """e_v for every id, of one norm."""
    x = numbers(plan)
    flagged = np.zeros((len(x), 4))
    flagged[[BOS, SEP, STOP, RAISED], range(4)] = 1.0
    rng = np.random.default_rng([plan.seed, 3])
    content = rng.standard_normal((len(x), len(along.free)))
    left = np.sqrt(LENGTH**2 - x**2 - flagged.sum(axis=1))
    content *= (left / np.linalg.norm(content, axis=1))[:, None]
    return (
        OUTLIER * along.outlier
        + x[:, None] * along.number
        + flagged @ along.flags
        + content @ along.free
    )


def norm(plan: Plan, layer: int) -> float:
    """|h| of an ordinary token that enters block `layer`: tagged or not yet."""
    tagged = plan.kind == "plants" and layer > plan.catch[0]
    return float(np.sqrt(OUTLIER**2 + LENGTH**2 + TAG**2 * tagged))
