"""Attention and MLP of a block as wholes: for methods that replace several matrices together."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from torch import nn

from mech.blocks import decoder_blocks
from mech.errors import BadInput

Rotary = Literal["half", "adjacent", "partial"]

# What families call the linears of an attention and of an MLP.
_ATTENTION = {
    "q": ("q_proj",),
    "k": ("k_proj",),
    "v": ("v_proj",),
    "o": ("o_proj", "out_proj", "dense"),
}
_MLP = {
    "gate": ("gate_proj",),
    "up": ("up_proj", "fc1", "dense_h_to_4h"),
    "down": ("down_proj", "fc2", "dense_4h_to_h"),
}
# Families that rotate the pairs (2i, 2i+1); the others rotate (i, i + d/2).
_ADJACENT = {
    *(
        "cohere",
        "cohere2",
        "cohere2_moe",
        "gptj",
        "codegen",
        "glm",
        "glm4",
        "llama4",
        "llama4_text",
    ),
    *("ernie4_5", "ernie4_5_moe", "helium", "blt", "moonshine"),
}


class Component(NamedTuple):
    """One attention or MLP of a block.

    linears and names go by role: "q", "k", "v", "o"; "gate" (where there is one), "up", "down".
    n_heads, n_kv_heads, d_head: of the attention, 0 for an MLP. rotary: how queries and keys are
    rotated: pairs (i, i + d/2), pairs (2i, 2i+1), only some of the dimensions, or (None) not.
    """

    kind: Literal["attention", "mlp"]
    layer: int
    module: nn.Module
    linears: Mapping[str, nn.Linear]
    names: Mapping[str, str]
    n_heads: int
    n_kv_heads: int
    d_head: int
    rotary: Rotary | None


def components(model: nn.Module, select: str = "*") -> list[Component]:
    """Attentions and MLPs of which every linear matches the fnmatch glob `select`, by depth.

    Raises BadInput where there is none: no match, or projections that a family keeps fused
    (Phi-3's qkv_proj, GPT-NeoX's query_key_value) or elsewhere than in linears (GPT-2).
    """
    found = [
        component
        for layer, block in enumerate(decoder_blocks(model))
        for component in _of_block(model, layer, block)
    ]
    chosen = [c for c in found if all(fnmatchcase(name, select) for name in c.names.values())]
    if not chosen:
        known = ", ".join(sorted({name for c in found for name in c.names.values()})[:4])
        raise BadInput(
            f"no whole attention or MLP matches {select!r}: "
            + (
                f"its linears are like {known}"
                if known
                else "this family keeps projections fused or not in linears"
            )
        )
    return chosen


def _of_block(model: nn.Module, layer: int, block: nn.Module) -> list[Component]:
    found = []
    for path, module in block.named_modules():
        prefix = f"layers.{layer}." + (f"{path}." if path else "")
        names = _names(module, _ATTENTION)
        if set(names) == set(_ATTENTION):
            linears = {role: getattr(module, name) for role, name in names.items()}
            full = {role: prefix + name for role, name in names.items()}
            sizes = _heads(model, module, linears)
            found.append(
                Component("attention", layer, module, linears, full, *sizes, _rotary(model))
            )
        names = _names(module, _MLP)
        if {"up", "down"} <= set(names):
            linears = {role: getattr(module, name) for role, name in names.items()}
            full = {role: prefix + name for role, name in names.items()}
            found.append(Component("mlp", layer, module, linears, full, 0, 0, 0, None))
    return found


def _names(module: nn.Module, roles: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {
        role: name
        for role, names in roles.items()
        for name in names
        if isinstance(getattr(module, name, None), nn.Linear)
    }


def _heads(
    model: nn.Module, attention: nn.Module, linears: Mapping[str, nn.Linear]
) -> tuple[int, int, int]:
    text = model.config.get_text_config(decoder=True)  # type: ignore[operator, union-attr]
    d_head = getattr(attention, "head_dim", None) or getattr(text, "head_dim", None)
    d_head = d_head or text.hidden_size // text.num_attention_heads
    return linears["q"].out_features // d_head, linears["k"].out_features // d_head, d_head


def _rotary(model: nn.Module) -> Rotary | None:
    text = model.config.get_text_config(decoder=True)  # type: ignore[operator, union-attr]
    parameters = getattr(text, "rope_parameters", None) or {}
    # GPT-J counts what it rotates and names no base.
    if getattr(text, "rotary_dim", None) is not None:
        return "partial"
    if not parameters and getattr(text, "rope_theta", None) is None:
        return None
    # Where kinds of layers rotate differently there is one set of parameters each.
    sets = [part for part in parameters.values() if isinstance(part, Mapping)] or [parameters]
    shares = [part.get("partial_rotary_factor") for part in sets]
    shares.append(getattr(text, "partial_rotary_factor", None))
    if any(share is not None and share < 1 for share in shares):
        return "partial"
    return "adjacent" if text.model_type in _ADJACENT else "half"
