"""Interventions on one matrix of the toy: what they cost, what was foreseen, what noise costs.

Every change dW of W_V1 or of M = W_Q2 W_K2^T (the product, not its factors) is compared with
Gaussian changes of the same Frobenius norm, and with the first order E[df^2] = vec(dW)^T H vec(dW)
of `sensitivity`. The units are seeds; for the theorem, random (s, b, d).
"""

import contextlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.bounds import error_bound
from toy.errors import NonPositiveQuery
from toy.laws.interventions import INTERVENTIONS, equal_noise
from toy.laws.measure import look, product, stacked, target, unexplained, with_product
from toy.laws.sensitivity import MATRICES, hessians, predicted
from toy.laws.tails import Sequences, draw
from toy.transformer import Weights, theorem_weights


class Compressed(NamedTuple):
    """One intervention on one matrix; `bound` is NaN outside the theorem's family."""

    matrix: str
    name: str
    norm: Float[np.ndarray, " seed"]  # |dW| / |W|, Frobenius
    fvu: Float[np.ndarray, " seed"]  # unexplained variance afterwards
    change: Float[np.ndarray, " seed"]  # E[(f' - f)^2] / E[m^2]
    foreseen: Float[np.ndarray, " seed"]  # the same to first order
    noise: Float[np.ndarray, " seed"]  # geometric mean over the Gaussian changes
    bound: Float[np.ndarray, " seed"]  # max of |f' - m| over Theorem B at the changed (b, d)


class Study(NamedTuple):
    """Everything about one group of seeds."""

    before: Float[np.ndarray, " seed"]  # unexplained variance
    rows: list[Compressed]
    shares: dict[str, Float[np.ndarray, "seed 2 2"]]  # of the trace of H, by entry
    draws: int
    sequences: int


def constructed(count: int, *, seed: int = 0) -> Weights:
    """The theorem's weights at random s in 14..22, b in -0.1..0.1, and d near the frontier's."""
    rng = np.random.default_rng(seed)
    s = rng.uniform(14, 22, count)
    b, d = rng.uniform(-0.1, 0.1, count), rng.uniform(0.7, 1.0, count) / s
    made = [theorem_weights(*setting) for setting in zip(s, b, d, strict=True)]
    return stacked(made)


def sizes(
    weights: Weights, sequences: Sequences, matrix: str
) -> tuple[Float[np.ndarray, "seed 2"], Float[np.ndarray, "seed 2"]]:
    """Root mean squares of what meets the rows and the columns of the matrix."""
    s_num, s_tag = np.asarray(weights.s_num), np.asarray(weights.s_tag)
    tokens = sequences.last.mean()  # one of them is [SEP]
    numbers = ((tokens - 1) + s_num**2) / tokens
    tags = ((tokens - 1) + s_tag**2) / tokens
    embedding = np.sqrt(np.stack([numbers, tags], axis=1))
    if matrix == "W_V1":
        return embedding, np.ones_like(embedding)
    stream = np.sqrt(stream_squares(weights, sequences))
    return stream, stream


def stream_squares(weights: Weights, sequences: Sequences) -> Float[np.ndarray, "seed 2"]:
    """E[h_i^2] over tokens, by coordinate, of the stream after layer 1."""
    W_V1 = np.asarray(weights.W_V1, dtype=np.float64)
    s_num, s_tag = np.asarray(weights.s_num), np.asarray(weights.s_tag)
    after = float((1 - sequences.t / sequences.last).mean())
    # After [SEP] every row reads [s_num, -s_tag]; before it, about [0, -1].
    tagged = np.array([0.0, -1.0]) + np.einsum(
        "si,sij->sj", np.stack([s_num, -s_tag], axis=1), W_V1
    )
    untagged = np.array([0.0, -1.0]) - W_V1[:, 1]
    squares = after * tagged**2 + (1 - after) * untagged**2
    return squares + np.array([1.0, 0.0])


def _put(weights: Weights, matrix: str, W: Float[np.ndarray, "seed 2 2"]) -> Weights:
    return weights._replace(W_V1=W) if matrix == "W_V1" else weights._replace(W_Q2=W)


def study(
    weights: Weights, *, tail: str, draws: int = 8, sequences: int = 1024, seed: int = 0
) -> Study:
    """Every intervention on W_V1 and on M, one matrix at a time, for seeds leading in `weights`.

    Raises `Refused` as `draw`.
    """
    rng = np.random.default_rng(seed)
    drawn = draw(rng, tail, sequences)
    weights = with_product(weights, product(weights))
    weights = weights._replace(W_V1=np.asarray(weights.W_V1, dtype=np.float64))
    output = look(weights, drawn).output
    variance = float((target(drawn) ** 2).mean())
    H = hessians(weights, drawn)
    rows = []
    for matrix in MATRICES:
        W = weights.W_V1 if matrix == "W_V1" else weights.W_Q2
        W = np.asarray(W)
        left, right = sizes(weights, drawn, matrix)
        for name, apply in INTERVENTIONS.items():
            change = apply(W, left, right) - W
            after = look(_put(weights, matrix, W + change), drawn).output
            noise = [
                ((look(_put(weights, matrix, W + dW), drawn).output - output) ** 2).mean(axis=1)
                for dW in equal_noise(rng, change, draws)
            ]
            size = np.linalg.norm(change, axis=(1, 2)) / np.linalg.norm(W, axis=(1, 2))
            rows.append(
                Compressed(
                    matrix=matrix,
                    name=name,
                    norm=size,
                    fvu=unexplained(after, drawn),
                    change=((after - output) ** 2).mean(axis=1) / variance,
                    foreseen=predicted(H[matrix], change) / variance,
                    noise=np.exp(np.log(np.maximum(noise, 1e-300)).mean(axis=0)) / variance,
                    bound=against_bound(_put(weights, matrix, W + change), after, drawn),
                )
            )
    shares = {name: _shares(of) for name, of in H.items()}
    return Study(unexplained(output, drawn), rows, shares, draws, sequences)


def against_bound(
    weights: Weights, output: Float[np.ndarray, "seed case"], sequences: Sequences
) -> Float[np.ndarray, " seed"]:
    """max over sequences of |f - m| / B at each seed's own (s, b, d); NaN where B is not proved."""
    X = float(np.abs(sequences.x).max())
    away = np.abs(output - target(sequences))
    shapes = np.stack([sequences.last, sequences.t], axis=1)
    pairs, which = np.unique(shapes, axis=0, return_inverse=True)
    found = np.full(len(output), np.nan)
    theorem = np.asarray(theorem_weights(2.0).W_V1), np.asarray(theorem_weights(2.0).W_V2)
    for seed, (s_num, s_tag, W_V1, M, _, W_V2) in enumerate(zip(*weights, strict=True)):
        same = np.array_equal(W_V1, theorem[0]) and np.array_equal(W_V2, theorem[1])
        if not same or s_num != 0 or np.any(M[:, 0] != 0):
            continue
        with contextlib.suppress(NonPositiveQuery):
            of = {"s_tag": float(s_tag), "b": float(M[0, 1]), "d": float(M[1, 1])}
            bounds = np.array([error_bound(T, t, X, **of) for T, t in pairs.tolist()])
            found[seed] = (away[seed] / bounds[which.reshape(-1)]).max()
    return found


def _shares(H: Float[np.ndarray, "seed 4 4"]) -> Float[np.ndarray, "seed 2 2"]:
    trace = np.diagonal(H, axis1=1, axis2=2)
    return (trace / trace.sum(axis=1, keepdims=True)).reshape(-1, 2, 2)
