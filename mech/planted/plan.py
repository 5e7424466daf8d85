"""What is planted and where: everything a seed draws before a weight is written."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from mech.errors import BadInput

Role = Literal["park", "dormant", "later", "catch", "read", "local", "uniform"]
Kind = Literal["plants", "uniform", "local", "massive"]

BOS, SEP, STOP, RAISED = 0, 1, 2, 3
"""Token ids: the first token, two separators, the secondary sink. The others are ordinary."""
OUTLIER, LENGTH = 8.0, 2.0
"""c, the outlier feature of every token, and the norm of all the rest of its embedding."""
TAG, BIAS = 2.0, 0.4
"""Norm of a tag, and of what each of the other heads writes."""
PARK, RECENT = 12.0, 80.0
"""Logits: of a key that is parked on over one that is not; of recency over a whole sequence."""
NOISE = 0.2
"""How much every query, key and value depends on what a token happens to be."""
SHORTEST = 128


@dataclass(frozen=True)
class Size:
    """The shape of a planted Llama: kv_heads divides heads, d_head is even and at least 12."""

    layers: int = 8
    heads: int = 4
    kv_heads: int = 4
    d_model: int = 64
    d_head: int = 16
    seq: int = 128
    vocabulary: int = 61


@dataclass(frozen=True)
class Plan:
    """The truth about one planted model.

    Blocks: the MLP of `created` writes the primary sink and that of `separated` the two later
    ones; both end with the MLP of block `end`. The MLP of `raised` makes the secondary sink and
    that of `erased` removes it. A sink that block b writes is in the stream from depth b + 1
    (`resid[b + 1]`) and can be attended to from layer b + 1 to the layer that erases it, included.
    """

    kind: Kind
    seed: int
    size: Size
    noise: float
    created: int
    separated: int
    raised: int
    erased: int
    end: int
    catch: tuple[int, int]
    read: tuple[int, int]
    roles: tuple[tuple[Role, ...], ...]
    outlier: int
    primary: tuple[int, int]
    separators: tuple[int, int]
    heights: tuple[float, float, float]
    raised_height: float
    cosine: float
    slopes: Float[np.ndarray, "layer head"]

    @property
    def massive(self) -> bool:
        """Whether the MLPs write massive activations at all."""
        return self.kind in ("plants", "massive")


def check(size: Size) -> None:
    """Raises BadInput for a shape that cannot hold the plants."""
    if size.seq < SHORTEST:
        raise BadInput(
            f"{size.seq} tokens are too few for planted segments: give at least {SHORTEST}"
        )
    if size.layers < 8 or size.d_model < 48 or size.d_head < 12 or size.d_head % 2:
        raise BadInput(
            f"{size} cannot hold the plants: give at least 8 layers, d_model 48 and an even "
            "d_head of at least 12"
        )
    if size.heads < 4 or size.heads % size.kv_heads or size.heads // size.kv_heads > 2:
        raise BadInput(f"{size} cannot hold the plants: give 4 heads or more, 1 or 2 a key head")
    if size.d_model % size.heads:
        raise BadInput(f"{size} is no Llama: give a d_model that is a multiple of heads")


def draw(seed: int, size: Size, kind: Kind = "plants", noise: float = NOISE) -> Plan:
    """A plan from a seed. Raises BadInput for a shape that cannot hold it."""
    check(size)
    rng = np.random.default_rng(seed)
    last = size.layers - 1
    created = int(rng.integers(0, 2))
    separated = int(rng.integers(0, 2))
    end = int(rng.integers(last - 1, last + 1))
    raised = int(rng.integers(2, last // 2))
    # A life of a fifth to three fifths of the primary sink's: neither noise nor one of its kind.
    lives = np.arange(2, (3 * (end - created)) // 5 + 1)
    erased = raised + int(rng.choice(lives[raised + lives < end]))
    catch = (2, int(rng.integers(size.heads)))
    read = (int(rng.integers(3, end + 1)), int(rng.integers(size.heads)))
    axes = [int(i) for i in rng.choice(size.d_model, 5, replace=False)]
    return Plan(
        kind=kind,
        seed=seed,
        size=size,
        noise=noise,
        created=created,
        separated=separated,
        raised=raised,
        erased=erased,
        end=end,
        catch=catch,
        read=read,
        roles=_roles(rng, size, kind, max(created, separated), end, catch, read),
        outlier=axes[0],
        primary=(axes[1], axes[2]),
        separators=(axes[3], axes[4]),
        heights=(
            float(rng.uniform(1500, 3000)),
            float(rng.uniform(400, 800)),
            float(rng.uniform(400, 800)),
        ),
        raised_height=float(rng.uniform(60, 100)),
        cosine=float(rng.uniform(0.93, 0.97)),
        slopes=rng.uniform(0.5, 2.0, (size.layers, size.heads)),
    )


def _roles(
    rng: np.random.Generator,
    size: Size,
    kind: Kind,
    begun: int,
    end: int,
    catch: tuple[int, int],
    read: tuple[int, int],
) -> tuple[tuple[Role, ...], ...]:
    plain: list[Role] = ["local", "uniform"]
    if kind in ("uniform", "local"):
        only: Role = "uniform" if kind == "uniform" else "local"
        heads: tuple[Role, ...] = (only,) * size.heads
        return (heads,) * size.layers
    sinks: list[Role] = ["park", "park", "later", "local", "uniform"]
    roles: list[list[Role]] = []
    for layer in range(size.layers):
        live = kind == "plants" and begun < layer <= end
        among = sinks if live else plain
        roles.append([among[i] for i in rng.integers(0, len(among), size.heads)])
    if kind != "plants":
        return tuple(map(tuple, roles))
    group = size.heads // size.kv_heads
    others = [first for first in range(0, size.heads, group) if first // group != read[1] // group]
    for layer in rng.choice(np.arange(3, end + 1), 2, replace=False):
        first = int(rng.choice(others))
        roles[layer][first : first + group] = ["dormant"] * group
    roles[catch[0]][catch[1]] = "catch"
    roles[read[0]][read[1]] = "read"
    return tuple(map(tuple, roles))


def sequences(plan: Plan, batch: int, seed: int = 0) -> Int[np.ndarray, "batch seq"]:
    """Prompts: BOS, ordinary ids, one SEP, one STOP after it and one or two RAISED anywhere.

    SEP stands in the second fifth of the sequence and STOP just behind its middle; the last
    segment has at least 54 tokens, since the causal mean over n tokens gives the first of them
    alpha = H_n / n, which is above 0.1 for n < 44.
    """
    size = plan.size
    rng = np.random.default_rng([plan.seed, seed])
    tokens = rng.integers(RAISED + 1, size.vocabulary, (batch, size.seq))
    tokens[:, 0] = BOS
    for row in tokens:
        sep = int(rng.integers(size.seq // 5, size.seq // 3))
        stop = int(rng.integers(size.seq // 2, size.seq // 2 + size.seq // 14))
        row[sep], row[stop] = SEP, STOP
        free = np.setdiff1d(np.arange(4, size.seq - 24), [sep, stop])
        row[rng.choice(free, rng.integers(1, 3), replace=False)] = RAISED
    return tokens
