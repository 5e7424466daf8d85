"""Where an edit reaches: A[q, s] = exp(logit[q, s] - lse[q]) and v_s at the sinks that it names."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mech.errors import BadInput

# Floats in one block of scores: 32 MiB in float32, a few of which are alive at a time.
BLOCK = 2**23

# Tokens of every sequence of a batch, such as (3, 17) of the first and none of the second.
Sinks = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Where:
    """These heads (None: all) of these layers, and these keys of every sequence of the batch.

    `sinks` has one tuple of tokens a sequence, or a single one for all of them. Sequences may
    have different numbers of sinks, also none. Raises BadInput for no sequence at all, a sink
    named twice in one, and negative layers or tokens.
    """

    layers: tuple[int, ...]
    sinks: Sinks
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (
            not self.sinks
            or min((*self.layers, *(s for row in self.sinks for s in row)), default=0) < 0
        ):
            raise BadInput("an edit needs one tuple of tokens a sequence, and no negative numbers")
        for row in (*self.sinks, self.heads or ()):
            if len(set(row)) < len(row):
                raise BadInput(f"{row} names one sink or head twice: its tag would count double")

    def heads_of(self, x: Float[Tensor, "batch head *rest"]) -> Float[Tensor, "batch chosen *rest"]:
        """The chosen heads' part of what has a head axis.

        Raises BadInput for a head that is not there.
        """
        if self.heads is None:
            return x
        if self.heads and not 0 <= min(self.heads) <= max(self.heads) < x.shape[1]:
            raise BadInput(f"heads {self.heads}: this layer's run from 0 to {x.shape[1] - 1}")
        return x[:, list(self.heads)]


class Seen(NamedTuple):
    """One attention call: query and key as attention got them, each query's keys low to high.

    `gram` gives W_O W_Oᵀ of every head, [head, d_head, d_head], when it is asked for. `sink`
    is a learned sink's logit, which lse includes (Agarwal et al. 2025, arXiv:2508.10925).
    """

    layer: int
    query: Float[Tensor, "batch head query d_key"]
    key: Float[Tensor, "batch kv_head key d_key"]
    value: Float[Tensor, "batch kv_head key d_head"]
    lse: Float[Tensor, "batch head query"]
    low: Int[Tensor, "_b query"]
    high: Int[Tensor, "_b query"]
    scaling: float
    softcap: float | None
    gram: Callable[[], Tensor]
    sink: Float[Tensor, " head"] | None = None

    def metric(self, where: Where) -> Float[Tensor, "head d_head d_head"]:
        """W_O W_Oᵀ of the heads of `where`: |x W_O|² = x (W_O W_Oᵀ) xᵀ."""
        return where.heads_of(self.gram().to(self.lse)[None])[0]

    def positions(self) -> Int[Tensor, " query"]:
        """The key that stands at each query's own place."""
        queries, keys = self.query.shape[2], self.key.shape[2]
        return torch.arange(keys - queries, keys, device=self.key.device)

    def groups(self) -> int:
        return self.query.shape[1] // self.key.shape[1]


class Written(NamedTuple):
    """weight[q, s] = A[q, s], 0 at the sink's own query and out of its sight; value = v_s."""

    weight: Float[Tensor, "batch head query sink"]
    sees: Bool[Tensor, "batch 1 query sink"]
    value: Float[Tensor, "batch head sink d_head"]


def written(seen: Seen, where: Where) -> Written:
    """What the sinks of `where` write into other tokens, factor by factor.

    Raises BadInput where the sinks do not fit the batch or the sequence.
    """
    at, named = _table(where.sinks, seen)
    key, value = (where.heads_of(_gathered(x, at, seen.groups())) for x in (seen.key, seen.value))
    logits = _logits(where.heads_of(seen.query), key, seen)
    column = at[:, None, :]
    inside = (seen.low[..., None] <= column) & (column <= seen.high[..., None])
    others = seen.positions()[:, None] != column
    sees = (inside & others & named[:, None])[:, None]
    # A padding query's lse is -inf: its entries are not numbers, and not used.
    weight = torch.where(sees, (logits - where.heads_of(seen.lse)[..., None]).exp(), 0.0)
    return Written(weight, sees, value.to(weight.dtype))


def tokens_mask(tokens: Sinks, seen: Seen) -> Bool[Tensor, "batch query"]:
    """True at the queries that stand at one of each sequence's `tokens`; errors as `written`."""
    at, named = _table(tokens, seen)
    hits = (seen.positions()[None, :, None] == at[:, None, :]) & named[:, None]
    return hits.any(dim=-1)


def masked_rows(seen: Seen, where: Where) -> Float[Tensor, "batch head query d_head"]:
    """(softmax without the sinks' columns - softmax with them) V; errors as `written`."""
    blocked = _blocked(seen, where)
    n_queries, n_keys = seen.query.shape[2], seen.key.shape[2]
    query = where.heads_of(seen.query)
    key, value = (
        where.heads_of(x.repeat_interleave(seen.groups(), dim=1)) for x in (seen.key, seen.value)
    )
    own = seen.positions()[:, None] == torch.arange(n_keys, device=key.device)
    step = max(BLOCK // (query.shape[0] * query.shape[1] * n_keys), 1)
    parts = []
    for start in range(0, n_queries, step):
        rows = slice(start, start + step)
        sees = _sees(seen, rows)[:, None]
        logits = _logits(query[:, :, rows], key, seen)
        kept = sees & (own[rows] | ~blocked[:, None, None])
        change = _softmax(logits, kept, seen, where) - _softmax(logits, sees, seen, where)
        parts.append(change @ value.to(change.dtype))
    return torch.cat(parts, dim=2)


def _blocked(seen: Seen, where: Where) -> Bool[Tensor, "batch key"]:
    at, named = _table(where.sinks, seen)
    n_keys = seen.key.shape[2]
    none = torch.zeros(len(at), n_keys + 1, dtype=torch.bool, device=at.device)
    # The column past the end takes what the shorter rows of the table are filled with.
    return none.scatter(1, torch.where(named, at, n_keys), True)[:, :n_keys]


def _sees(seen: Seen, rows: slice) -> Bool[Tensor, "_b row key"]:
    keys = torch.arange(seen.key.shape[2], device=seen.key.device)
    return (seen.low[:, rows, None] <= keys) & (keys <= seen.high[:, rows, None])


def _softmax(logits: Tensor, sees: Tensor, seen: Seen, where: Where) -> Tensor:
    """The pattern over the keys that are seen; a query that sees none has a row of zeros."""
    logits = logits.masked_fill(~sees, float("-inf"))
    if seen.sink is not None:
        column = where.heads_of(seen.sink.to(logits)[None, :, None, None])
        logits = torch.cat([logits, column.expand(*logits.shape[:3], 1)], dim=-1)
    pattern = torch.softmax(logits, dim=-1)[..., : sees.shape[-1]]
    return torch.where(sees, pattern, 0.0)


def _logits(query: Tensor, key: Tensor, seen: Seen) -> Tensor:
    """scaling · q kᵀ, softly capped, at least in float32."""
    dtype = seen.lse.dtype
    logits = query.to(dtype) @ key.to(dtype).mT * seen.scaling
    return logits if seen.softcap is None else seen.softcap * torch.tanh(logits / seen.softcap)


def _gathered(
    x: Float[Tensor, "batch kv_head key d"], at: Int[Tensor, "batch column"], groups: int
) -> Float[Tensor, "batch head column d"]:
    index = at[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
    return x.gather(2, index).repeat_interleave(groups, dim=1)


def _table(
    tokens: Sinks, seen: Seen
) -> tuple[Int[Tensor, "batch column"], Bool[Tensor, "batch column"]]:
    """The tokens of each sequence as a rectangle, and which of its places are filled."""
    batch, n_keys = seen.query.shape[0], seen.key.shape[2]
    if len(tokens) not in (1, batch):
        raise BadInput(f"sinks of {len(tokens)} sequences, but the batch has {batch}")
    last = max((token for row in tokens for token in row), default=0)
    if last >= n_keys:
        raise BadInput(f"token {last} is named, but a sequence has {n_keys}")
    width = max(map(len, tokens))
    rows = [[*row, *[-1] * (width - len(row))] for row in tokens]
    at = torch.tensor(rows, dtype=torch.long, device=seen.key.device).reshape(len(rows), width)
    at = at.expand(batch, width)
    return at.clamp(min=0), at >= 0
