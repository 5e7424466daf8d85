"""The four matrices of every head, whatever a family calls them and however it packs them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from mech.blocks import decoder_blocks
from mech.errors import BadInput
from mech.ondisk import resident

# Names of the norm that a block reads its attention's input through.
_NORMS = ("input_layernorm", "ln_1", "self_attn_layer_norm")
_OUT = ("o_proj", "out_proj", "dense", "c_proj")
_LARGE = 1e3  # a norm's epsilon, at most 1e-5, is nothing beside its square


class HeadWeights(NamedTuple):
    """x ↦ x W_Q + b_Q, x W_K + b_K, x W_V + b_V, z ↦ Σ_h z_h W_O[h] + b_O, for row vectors x.

    x is what the attention module reads (after the block's input norm). Query head h shares
    the key head h // (heads / kv heads). A bias that a family does not have is None.
    """

    W_Q: Float[np.ndarray, "head d_model d_key"]
    W_K: Float[np.ndarray, "kv_head d_model d_key"]
    W_V: Float[np.ndarray, "kv_head d_model d_head"]
    W_O: Float[np.ndarray, "head d_head d_model"]
    b_Q: Float[np.ndarray, "head d_key"] | None
    b_K: Float[np.ndarray, "kv_head d_key"] | None
    b_V: Float[np.ndarray, "kv_head d_head"] | None
    b_O: Float[np.ndarray, " d_model"] | None


class _Affine(NamedTuple):
    """x ↦ x @ weight + bias."""

    weight: Float[Tensor, "d_in d_out"]
    bias: Float[Tensor, " d_out"] | None

    def columns(self, index: Tensor) -> "_Affine":
        bias = self.bias
        return _Affine(self.weight[:, index], None if bias is None else bias[index])


def head_weights(model: PreTrainedModel, layer: int, *, fold_norm: bool = False) -> HeadWeights:
    """logits before rotation and scaling = (x W_Q + b_Q)(x W_K + b_K)ᵀ, write = Σ_h z_h W_O + b_O.

    `layer` counts from 0. float32 arrays (float64 of a float64 model), copies. What lies outside
    the four matrices is not in them: rotary positions (the identity at position 0), norms on
    queries and keys (Qwen3, Gemma 3, OLMo 2), every scalar factor (the scaling, which OPT puts on
    its queries; YaRN's), norms after W_O (Gemma, OLMo 2).
    With `fold_norm` the gain g of the input norm is moved into W_Q, W_K and W_V: x is then
    normalised and not yet multiplied by g (a norm's own bias stays outside); under LayerNorm,
    which removes the mean of x, what would read that mean is removed from them. Families
    without a norm before attention (OLMo 2) stay as they are.

    Raises BadInput on a layer that is not there and on a layout that is not known (latent
    attention such as DeepSeek's, fused projections of another order).
    """
    blocks = decoder_blocks(model)
    if not 0 <= layer < len(blocks):
        raise BadInput(f"layer {layer}: this model's run from 0 to {len(blocks) - 1}")
    block = blocks[layer]
    with torch.no_grad(), resident(block):
        attention, projections = _found(block)
        W_Q, W_K, W_V = projections(attention)
        out = _affine(_projection(attention))
        fold = _fold(block, W_Q.weight) if fold_norm else None
        d_head = _d_head(attention, W_Q)
        q, k, v = (_heads(part, d_head, fold) for part in (W_Q, W_K, W_V))
        bias = None if out.bias is None else _array(out.bias)
        W_O = _array(out.weight).reshape(-1, d_head, out.weight.shape[1])
    return HeadWeights(q[0], k[0], v[0], W_O, q[1], k[1], v[1], bias)


def input_gain(model: PreTrainedModel, layer: int) -> Float[np.ndarray, " d_model"]:
    """g of the norm g x̂ + b that the heads of a layer read through; ones where there is none.

    Raises BadInput as `head_weights` does.
    """
    blocks = decoder_blocks(model)
    W_Q = head_weights(model, layer).W_Q
    norm = _norm(blocks[layer])
    with torch.no_grad(), resident(blocks[layer]):
        like = next(blocks[layer].parameters()).new_zeros(W_Q.shape[1])
        return np.ones(len(like), W_Q.dtype) if norm is None else _gain(norm, like)


_Projections = Callable[[nn.Module], tuple[_Affine, _Affine, _Affine]]


def _found(block: nn.Module) -> tuple[nn.Module, _Projections]:
    for module in block.modules():
        if not any(hasattr(module, name) for name in _OUT):
            continue
        for names, projections in _LAYOUTS.items():
            if all(isinstance(getattr(module, name, None), nn.Module) for name in names):
                return module, projections
    raise _unknown(block, "its projections have names that are not known here")


def _unknown(module: nn.Module, why: str) -> BadInput:
    return BadInput(
        f"{type(module).__name__}: {why}: the heads' matrices cannot be told apart "
        "(read: q_proj/k_proj/v_proj, qkv_proj, query_key_value, c_attn)"
    )


def _separate(attention: nn.Module) -> tuple[_Affine, _Affine, _Affine]:
    q, k, v = (_affine(attention.get_submodule(name)) for name in ("q_proj", "k_proj", "v_proj"))
    return q, k, v


def _stacked(attention: nn.Module) -> tuple[_Affine, _Affine, _Affine]:
    """Columns: every query head, then every key head, then every value head."""
    name = "qkv_proj" if hasattr(attention, "qkv_proj") else "c_attn"
    packed = attention.get_submodule(name)
    # GPT-BigCode's c_attn is a linear, and its order another one.
    if name == "c_attn" and type(packed).__name__ != "Conv1D":
        raise _unknown(attention, "its c_attn is not GPT-2's")
    together = _affine(packed)
    width, total = _affine(_projection(attention)).weight.shape[0], together.weight.shape[1]
    if total <= width or (total - width) % 2:
        raise _unknown(attention, f"{total} columns of {name} are not {width} and two equal parts")
    index = torch.arange(total)
    q, k, v = (together.columns(i) for i in index.split([width, *[(total - width) // 2] * 2]))
    return q, k, v


def _interleaved(attention: nn.Module) -> tuple[_Affine, _Affine, _Affine]:
    """Columns: for every head its query, its key and its value."""
    together = _affine(attention.get_submodule("query_key_value"))
    d_head, width = _stated_d_head(attention), _affine(_projection(attention)).weight.shape[0]
    if d_head is None or together.weight.shape[1] != 3 * width or width % d_head:
        raise _unknown(attention, "its query_key_value does not hold three equal parts a head")
    index = torch.arange(3 * width).reshape(-1, 3, d_head)
    q, k, v = (together.columns(index[:, part].flatten()) for part in range(3))
    return q, k, v


_LAYOUTS: dict[tuple[str, ...], _Projections] = {
    ("q_proj", "k_proj", "v_proj"): _separate,
    ("qkv_proj",): _stacked,
    ("c_attn",): _stacked,
    ("query_key_value",): _interleaved,
}


def _projection(attention: nn.Module) -> nn.Module:
    return attention.get_submodule(next(name for name in _OUT if hasattr(attention, name)))


def _affine(module: nn.Module) -> _Affine:
    """A linear's matrix, or what any other affine map does to the unit vectors."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if type(module) is nn.Linear and isinstance(weight, Tensor):
        return _Affine(weight.T, bias)
    if type(module).__name__ == "Conv1D" and isinstance(weight, Tensor):
        return _Affine(weight, bias)
    d_in = getattr(module, "in_features", None)
    if not isinstance(d_in, int):
        raise _unknown(module, "it is not a linear map that is known here")
    like = next(module.parameters())
    constant = module(like.new_zeros(1, d_in))
    return _Affine(module(torch.eye(d_in, dtype=like.dtype)) - constant, constant[0])


def _d_head(attention: nn.Module, query: _Affine) -> int:
    stated, width = _stated_d_head(attention), query.weight.shape[1]
    if stated is None or width % stated or width != _affine(_projection(attention)).weight.shape[0]:
        raise _unknown(attention, f"queries of width {width} do not divide into its heads")
    return stated


def _stated_d_head(attention: nn.Module) -> int | None:
    found = (getattr(attention, name, None) for name in ("head_dim", "head_size"))
    return next((size for size in found if isinstance(size, int)), None)


def _heads(
    affine: _Affine, d_head: int, fold: Callable[[np.ndarray], np.ndarray] | None
) -> tuple[Float[np.ndarray, "head d_model d"], Float[np.ndarray, "head d"] | None]:
    weight = _array(affine.weight)
    if fold is not None:
        weight = fold(weight)
    heads = np.ascontiguousarray(weight.reshape(len(weight), -1, d_head).swapaxes(0, 1))
    return heads, None if affine.bias is None else _array(affine.bias).reshape(-1, d_head)


def _fold(block: nn.Module, like: Tensor) -> Callable[[np.ndarray], np.ndarray] | None:
    """W ↦ g W, less what reads the mean where the norm takes the mean away."""
    norm = _norm(block)
    if norm is None:
        return None
    gain, centred = _gain(norm, like)[:, None], isinstance(norm, nn.LayerNorm)
    return lambda weight: gain * weight - centred * (gain * weight).mean(axis=0)


def _norm(block: nn.Module) -> nn.Module | None:
    return next((getattr(block, name) for name in _NORMS if hasattr(block, name)), None)


def _gain(norm: nn.Module, like: Tensor) -> Float[np.ndarray, " d_model"]:
    """g of norm(x) = g x̂ + b, for RMSNorm (also Gemma's 1 + w) and LayerNorm alike.

    x = ±(c, -c, c, …) has mean 0, so that norm(x) - norm(-x) = 2 g x / rms(x), up to c's share
    of the norm's epsilon. An odd width leaves one coordinate at 0, and takes a second x.
    """
    x = like.new_zeros(like.shape[0])
    even = len(x) - len(x) % 2
    x[:even:2], x[1:even:2] = _LARGE, -_LARGE
    first, second = (
        (norm(y) - norm(-y)) / 2 * y.square().mean().sqrt() * y / _LARGE**2 for y in (x, x.roll(1))
    )
    return _array(torch.where(x == 0, second, first))


def _array(x: Tensor) -> Float[np.ndarray, "..."]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.detach().to("cpu", dtype, copy=True).numpy()
