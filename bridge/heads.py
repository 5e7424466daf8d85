"""Which rows and columns of a projection belong to which attention heads."""

from collections.abc import Collection

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from bridge.fused import parts
from mech.errors import BadInput

PROJECTIONS = {
    "q": ("q_proj",),
    "k": ("k_proj",),
    "v": ("v_proj",),
    "o": ("o_proj", "out_proj", "dense"),
    "mlp": (
        *("gate_proj", "up_proj", "down_proj", "gate_up_proj"),
        *("fc1", "fc2", "dense_h_to_4h", "dense_4h_to_h"),
    ),
}
"""What families call the linears of each projection."""


def of_heads(
    model: nn.Module, name: str, shape: tuple[int, int], heads: Collection[int]
) -> Bool[Tensor, "d_out d_in"]:
    """True where entry (i, j) of the matrix at `name` belongs to one of `heads`.

    Head h owns the rows [h d_head, (h + 1) d_head) of W_Q, W_K, W_V and as many columns of W_O.
    Heads are those of the projection: query heads in W_Q and W_O, key heads in W_K and W_V,
    where a group of query heads shares one. A fused qkv_proj holds the three below each other.
    Raises BadInput where the matrix has no heads (an MLP, an interleaved query_key_value), where
    none is named, and for a head that is not there.
    """
    last = name.rsplit(".", 1)[-1]
    d_head = _d_head(model)
    if last == "qkv_proj":
        return _fused(model, name, shape, heads, d_head)
    if last in PROJECTIONS["o"]:
        return _owned(name, shape[1], heads, d_head).expand(shape).clone()
    if any(last in PROJECTIONS[role] for role in "qkv"):
        return _owned(name, shape[0], heads, d_head)[:, None].expand(shape).clone()
    raise BadInput(f"{name} has no heads: choose q, k, v or o projections with select")


def _owned(name: str, size: int, heads: Collection[int], d_head: int) -> Bool[Tensor, " size"]:
    count = size // d_head
    if not heads:
        raise BadInput("no heads: name at least one")
    if absent := [head for head in heads if not 0 <= head < count]:
        raise BadInput(f"{name}: head {absent[0]} is not there; its heads are 0 to {count - 1}")
    own = torch.zeros(count, dtype=torch.bool)
    own[list(heads)] = True
    return own.repeat_interleave(d_head)


def _fused(
    model: nn.Module, name: str, shape: tuple[int, int], heads: Collection[int], d_head: int
) -> Bool[Tensor, "d_out d_in"]:
    sizes = parts(model, name, nn.Linear(shape[1], shape[0], bias=False, device="meta"))
    if len(sizes) != 3:
        raise BadInput(f"{name}: its {shape[0]} rows are not those of three projections")
    owned = [_owned(name, size, heads, d_head) for size in sizes]
    return torch.cat(owned)[:, None].expand(shape).clone()


def _d_head(model: nn.Module) -> int:
    config = getattr(model, "config", None)
    if config is None:
        raise BadInput(f"a {type(model).__name__} has no configuration that tells its heads")
    text = config.get_text_config(decoder=True)
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
