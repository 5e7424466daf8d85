"""Weights by formula: heads that park, catch and read, MLPs that write and erase.

Row vectors, x the normed stream (|x| = sqrt(d_model)), n = |h| of an ordinary token, and
u = x · o / (sqrt(d_model) c / n): 1 at an ordinary token, next to 0 at a massive one.

A head's queries are constants, q = u · (coefficients of its role); its keys are

    pair 1:  u + (x · p + x · s_1 + x · s_2) / sqrt(d_model)         1 at every token
    slow:    x · p, x · s_1, x · s_2 (each over sqrt(d_model)),  x · τ_2 over its own size

RoPE turns pair i by seq^-i radians a token (rope_theta = seq^(d_head / 2)): pair 1 by less than
one over the whole sequence, so that with a query a quarter turn behind its logit is
-RECENT sin((q - k) / seq), and the slow pairs, from 3 on, not at all. Values are

    (x · p, x · s_1, x · s_2) / sqrt(d_model),  x · ν,  u,  and noise of the content,

turned by a random rotation which W_O undoes; it writes what a role asks for. A neuron of the MLP
is down · silu(g · x) (w · x). It writes height · d at the tokens with a flag f by

    g = 30 (2 x · f / f₀ - u) = 30 at these and -30 at others,   w = u,   down = height d / 30,

with f₀ the size of the flag at a token that has it, and takes away what only a sink's tokens have
along a by g = 30 (a · x) / a₀, w = g / 30: 0 at the others.
"""

import numpy as np
from jaxtyping import Float

from mech.planted.plan import BIAS, OUTLIER, PARK, RECENT, TAG, Plan, Role
from mech.planted.stream import Directions, norm

GATE = 30.0
DORMANT = 1e-3
"""What a dormant head keeps of its values."""
LOUD = 3.0
NEURONS = 8
"""d_mlp: a neuron for each sink's beginning and for each one's end."""
VALUES = 5
"""Dimensions of a head's output that mean something: p, s_1, s_2, number, constant."""

Matrix = Float[np.ndarray, "d_in d_out"]


def slow(d_head: int) -> list[int]:
    """The dimensions of q and k that carry p, s_1, s_2 and τ_2: both halves of the last pairs."""
    half = d_head // 2
    return [half - 1, d_head - 1, half - 2, d_head - 2]


def coefficients(role: Role, slope: float, seq: int) -> tuple[tuple[float, ...], float]:
    """(logits of p, s_1, s_2, τ_2; what recency is worth over a whole sequence)."""
    caught = RECENT + PARK
    return {
        "park": ((PARK, 0.0, 0.0, 0.0), 0.0),
        "dormant": ((PARK, 0.0, 0.0, 0.0), 0.0),
        "later": ((0.0, PARK, 0.0, 0.0), 0.0),
        "catch": ((caught, caught, caught, 0.0), RECENT),
        "read": ((0.0, 0.0, 0.0, PARK), 0.0),
        "local": ((0.0, 0.0, 0.0, 0.0), slope * seq),
        "uniform": ((0.0, 0.0, 0.0, 0.0), 0.0),
    }[role]


def constant(plan: Plan, along: Directions, layer: int) -> Float[np.ndarray, " d_model"]:
    """The vector whose product with x is u."""
    return along.outlier * norm(plan, layer) / (np.sqrt(plan.size.d_model) * OUTLIER)


def queries(plan: Plan, along: Directions, layer: int, rng: np.random.Generator) -> Matrix:
    """W_Q of all heads, side by side."""
    size = plan.size
    heads = []
    for role, slope in zip(plan.roles[layer], plan.slopes[layer], strict=True):
        logits, recent = coefficients(role, slope, size.seq)
        wanted = np.zeros(size.d_head)
        wanted[slow(size.d_head)] = logits
        wanted[1 + size.d_head // 2] = recent
        # Attention divides by sqrt(d_head).
        exact = np.outer(constant(plan, along, layer), wanted * np.sqrt(size.d_head))
        heads.append(exact + _noise(plan, along, _idle(size.d_head), rng))
    return np.concatenate(heads, axis=1)


def keys(plan: Plan, along: Directions, layer: int, rng: np.random.Generator) -> Matrix:
    """W_K of all key heads, side by side: the same for every role."""
    size, root = plan.size, np.sqrt(plan.size.d_model)
    seen = np.stack([along.primary, *along.separators]) / root
    exact = np.zeros((size.d_model, size.d_head))
    exact[:, 1] = constant(plan, along, layer) + seen.sum(axis=0)
    exact[:, slow(size.d_head)[:3]] = seen.T
    exact[:, slow(size.d_head)[3]] = along.tags[2] * norm(plan, layer) / (root * TAG)
    heads = [exact + _noise(plan, along, _idle(size.d_head), rng) for _ in range(size.kv_heads)]
    return np.concatenate(heads, axis=1)


def values(
    plan: Plan, along: Directions, layer: int, rng: np.random.Generator
) -> tuple[Matrix, Float[np.ndarray, "d_z d_model"]]:
    """W_V of all key heads and W_O of all heads."""
    size, root = plan.size, np.sqrt(plan.size.d_model)
    group = size.heads // size.kv_heads
    columns = [*(np.stack([along.primary, *along.separators]) / root), along.number]
    exact = np.zeros((size.d_model, size.d_head))
    exact[:, :VALUES] = np.stack([*columns, constant(plan, along, layer)], axis=1)
    W_V, W_O = [], []
    written = _written(plan, along, layer)
    for kv in range(size.kv_heads):
        turn = np.linalg.qr(rng.standard_normal((size.d_head, size.d_head)))[0]
        asleep = plan.roles[layer][kv * group] == "dormant"
        noisy = exact + _noise(plan, along, list(range(VALUES, size.d_head)), rng)
        W_V.append(noisy @ turn * (DORMANT if asleep else 1.0))
        W_O += [turn.T @ written[head] for head in range(kv * group, (kv + 1) * group)]
    return np.concatenate(W_V, axis=1), np.concatenate(W_O, axis=0)


def _written(plan: Plan, along: Directions, layer: int) -> Float[np.ndarray, "head d_head d_model"]:
    """What each head writes of its values.

    The writes of heads without a plant are constants that add up to nothing, n of them along the
    n-th roots of unity in the plane of `bias`: no token's norm depends on how many there are.
    """
    size = plan.size
    written = np.zeros((size.heads, size.d_head, size.d_model))
    plain = [h for h, role in enumerate(plan.roles[layer]) if role not in ("catch", "read")]
    for number, head in enumerate(plain):
        angle = 2 * np.pi * number / len(plain)
        way = np.cos(angle) * along.bias[0] + np.sin(angle) * along.bias[1]
        written[head, [0, 1, 2, 4]] = BIAS * way
        written[head, VALUES:] = plan.noise * BIAS * along.free[: size.d_head - VALUES]
    for head, role in enumerate(plan.roles[layer]):
        if role == "catch":
            # What no sink has in its value is written louder, away from the tags: a random
            # direction of the head's space then hardly touches them, as in a wide head.
            written[head, :3] = TAG * along.tags
            written[head, VALUES:] = LOUD * TAG * along.free[: size.d_head - VALUES]
        elif role == "read":
            written[head, 3] = along.out
    return written


def _idle(d_head: int) -> list[int]:
    """Dimensions of q and k that no role uses."""
    used = {1, 1 + d_head // 2, *slow(d_head)}
    return [i for i in range(d_head) if i not in used]


def _noise(plan: Plan, along: Directions, where: list[int], rng: np.random.Generator) -> Matrix:
    matrix = np.zeros((plan.size.d_model, plan.size.d_head))
    drawn = rng.standard_normal((len(along.free), len(where)))
    matrix[:, where] = plan.noise / np.sqrt(len(where)) * along.free.T @ drawn
    return matrix


def neurons(
    plan: Plan, along: Directions, layer: int
) -> tuple[Matrix, Matrix, Float[np.ndarray, "d_out d_in"]]:
    """(gate, up, down) of a block's MLP; d_mlp is NEURONS, what is not used is 0."""
    size, root = plan.size, np.sqrt(plan.size.d_model)
    n, u = norm(plan, layer + 1), constant(plan, along, layer + 1)
    sinks = np.stack([along.primary, *along.separators, along.raised])
    heights = np.array([*plan.heights, plan.raised_height])
    blocks = [plan.created, plan.separated, plan.separated, plan.raised]
    gate, up = np.zeros((2, size.d_model, NEURONS))
    down = np.zeros((NEURONS, size.d_model))
    if not plan.massive:
        return gate, up, down
    for flag, (block, sink, height) in enumerate(zip(blocks, sinks, heights, strict=True)):
        if layer == block:
            gate[:, flag] = GATE * (2 * along.flags[flag] * n / root - u)
            up[:, flag] = u
            down[flag] = height * sink / GATE
    gone = [plan.end, plan.end, plan.end, plan.erased]
    marks = np.stack([along.primary, *along.separators, along.aside])
    for index, (block, sink, mark, height) in enumerate(
        zip(gone, sinks, marks, heights, strict=True)
    ):
        if layer == block:
            size_of_mark = root * height * (sink @ mark) / np.hypot(height, n)
            up[:, 4 + index] = mark / size_of_mark
            gate[:, 4 + index] = GATE * up[:, 4 + index]
            down[4 + index] = -height * sink / GATE
    return gate, up, down
