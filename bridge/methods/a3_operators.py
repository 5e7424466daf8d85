"""Narrower heads as operators of the width that they had: dropped coordinates are zero."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bridge.methods.a3_heads import Heads
from bridge.operators import Affine, LinearOperator
from bridge.sliced import Sliced

Map = Float[Tensor, "kv_head d_head rank"]


def mapped(linear: nn.Linear, maps: Map, heads: Heads) -> LinearOperator | Affine:
    """Every head's output y becomes mapᵀ y, in its first `rank` coordinates; the bias with it."""
    _, d_head, rank = maps.shape
    weight = linear.weight.detach()
    each = weight.double().view(heads.n_kv_heads, -1, d_head, linear.in_features)
    narrow = torch.einsum("kdr,kgdm->kgrm", maps, each).flatten(0, 2).to(weight.dtype)
    rows = _first(linear.out_features // d_head, d_head, rank, weight.device)
    term = Sliced(narrow, shape=(linear.out_features, linear.in_features), rows=rows)
    if linear.bias is None:
        return term
    bias = linear.bias.detach().double().view(heads.n_kv_heads, -1, d_head)
    return _with_bias(term, linear, torch.einsum("kdr,kgd->kgr", maps, bias).flatten(), rows)


def mapped_input(o: nn.Linear, maps: Map, heads: Heads) -> LinearOperator:
    """W_o of every head reads the first `rank` coordinates through its map."""
    _, d_head, rank = maps.shape
    weight = o.weight.detach()
    each = weight.double().view(len(weight), heads.n_kv_heads, -1, d_head)
    narrow = torch.einsum("okgd,kdr->okgr", each, maps).flatten(1).to(weight.dtype)
    columns = _first(o.in_features // d_head, d_head, rank, weight.device)
    return Sliced(narrow, shape=(o.out_features, o.in_features), columns=columns)


def kept_rows(linear: nn.Linear, rows: Int[Tensor, " kept"]) -> LinearOperator | Affine:
    """Some outputs of a linear, in their places; the bias of the others is dropped, too."""
    weight = linear.weight.detach()
    term = Sliced(weight[rows], shape=(linear.out_features, linear.in_features), rows=rows)
    if linear.bias is None:
        return term
    return _with_bias(term, linear, linear.bias.detach()[rows], rows)


def kept_columns(linear: nn.Linear, columns: Int[Tensor, " kept"]) -> LinearOperator:
    """Some inputs of a linear; its bias stays."""
    weight = linear.weight.detach()[:, columns]
    return Sliced(weight, shape=(linear.out_features, linear.in_features), columns=columns)


def placed(kept: Sequence[Int[Tensor, " _"]], width: int, heads: Heads) -> Int[Tensor, " rows"]:
    """Coordinates kept of each key head, as indices over `width` and all heads that share it."""
    n_heads = width // heads.d_head
    group = n_heads // heads.n_kv_heads
    return torch.cat([head * heads.d_head + kept[head // group] for head in range(n_heads)])


def _with_bias(term: LinearOperator, linear: nn.Linear, values: Tensor, rows: Tensor) -> Affine:
    bias = torch.zeros_like(linear.bias.detach())
    return Affine(term, bias.index_copy(0, rows, values.to(bias.dtype)))


def _first(n_heads: int, d_head: int, rank: int, device: torch.device) -> Int[Tensor, " rows"]:
    starts = d_head * torch.arange(n_heads, device=device)
    return (starts[:, None] + torch.arange(rank, device=device)).flatten()
