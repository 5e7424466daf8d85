"""What every setting of a linear costs in nats, before any model is run with it."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bridge.decode.plan import Rule, Setting
from bridge.search.knapsack import Candidate
from bridge.search.pool import pooled
from bridge.search.sensitivity import Seen

SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the channels that are read."""
RANKS = (0.01, 0.02, 0.04)
"""Shares of the dense bytes that factors take beside them."""
RULES: tuple[Rule, ...] = ("magnitude",)
"""The column rule was not compared on a whole model; each rule costs as much time again."""
FITTED = 512  # tokens that factors are fitted to; their cost is read on the others
FACTORED = 0.6  # up to this share of the channels a stand-in for the rest is tried


def costs(
    weights: Mapping[str, Float[Tensor, "d_out d_in"]],
    seen: Mapping[str, Seen],
    *,
    shares: Sequence[float] = SHARES,
    ranks: Sequence[float] = RANKS,
    rules: Sequence[Rule] = RULES,
    advance: Callable[[str], None] | None = None,
) -> dict[str, list[Candidate]]:
    """`Seen.cost` of every rule, share of channels and rank, for every linear.

    Factors are those of least output error on what is left out ("moment"), fitted to other tokens
    than their cost is read on: a rank that only fits its own tokens does not look cheap.
    """
    found = {}
    for name, weight in weights.items():
        w = weight.detach().float().cpu()
        found[name] = [
            candidate
            for rule in rules
            for candidate in _candidates(w, seen[name], shares, ranks, rule)
        ]
        if advance is not None:
            advance(name)
    return found


def _candidates(
    w: Float[Tensor, "d_out d_in"],
    seen: Seen,
    shares: Sequence[float],
    ranks: Sequence[float],
    rule: Rule,
) -> list[Candidate]:
    d_out, d_in = w.shape
    scale = torch.ones(d_in) if rule == "magnitude" else w.norm(dim=0)
    size = seen.x.abs() * scale
    level = _levels(size, shares)
    fit = min(FITTED, len(size) // 4)
    judged = Seen(seen.x[fit:], seen.g[fit:])
    # g_t · W e_t by channels: what leaving a channel of a token out does, without its output.
    each = judged.x * (judged.g @ w)
    found = []
    for share, least in zip(shares, level, strict=True):
        kept = size > least
        lost = each.masked_fill(kept[fit:], 0).sum(dim=1)
        found.append(Candidate(Setting(1 - share, 1.0, rule), share, _cost(lost)))
        if not ranks or share > FACTORED:
            continue
        rest = seen.x.masked_fill(kept, 0)
        whole = [int(rank * d_out * d_in / (d_out + d_in)) for rank in ranks]
        explained = _explained(w, rest[:fit], rest[fit:], judged.g, max(whole))
        for rank in whole:
            if 0 < rank <= explained.shape[1]:
                spent = share + rank * (d_out + d_in) / (d_out * d_in)
                setting = Setting(1 - spent, share / spent, rule, "moment")
                found.append(Candidate(setting, spent, _cost(lost - explained[:, rank - 1])))
    return found


def _levels(size: Float[Tensor, "tokens d_in"], shares: Sequence[float]) -> list[float]:
    """Quantiles of the sizes; below all of them at share 1."""
    pool = pooled(size)
    return [-1.0 if s >= 1 else float(pool[round((1 - s) * (len(pool) - 1))]) for s in shares]


def _explained(
    w: Float[Tensor, "d_out d_in"],
    fitted: Float[Tensor, "few d_in"],
    rest: Float[Tensor, "tokens d_in"],
    g: Float[Tensor, "tokens d_out"],
    most: int,
) -> Float[Tensor, "tokens rank"]:
    """g_t · U_r U_rᵀ W e_t for r = 1, 2, …: U the principal outputs of what was left out."""
    outputs = fitted @ w.mT
    # By the smaller Gram matrix, of few tokens: eigenvectors of one, not singular vectors of both.
    values, vectors = torch.linalg.eigh((outputs @ outputs.mT).double())
    rank = min(most, int((values > 1e-9 * values[-1].clamp_min(1e-300)).sum()))
    if rank == 0:
        return rest.new_zeros(len(rest), 0)
    top = vectors[:, -rank:].flip(1).float() / values[-rank:].flip(0).sqrt().float()
    u = outputs.mT @ top
    return ((g @ u) * (rest @ (w.mT @ u))).cumsum(dim=1)


def _cost(lost: Float[Tensor, " tokens"]) -> float:
    return float(lost.double().square().mean() / 2)
