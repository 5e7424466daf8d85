"""All blocks in one compiled call, where every linear of them is a prepared product."""

import numpy as np
import torch
from torch import nn

from bridge.decode.fast_cache import Held
from bridge.decode.fast_linear import bits
from bridge.decode.fast_shape import Shape
from bridge.decode.gated import Gated
from ctr_kernels.sparse_gemv.framed import Framed, framed
from mech.blocks import decoder_blocks

PATHS = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
F4 = np.float32


class Whole:
    """h and x = norm(h) after the last block, from h before the first.

    What `Step` does between its linears, without coming back to Python; see `made`.
    """

    def __init__(self, shape: Shape, batch: int, frames: Framed, norms: np.ndarray, x: np.ndarray):
        from ctr_kernels.one_token.whole import blocks

        self._blocks, self._framed, self._norms = blocks, frames, norms
        self._constants = F4(shape.d_head**-0.5), F4(shape.eps)

        def memory(width: int) -> np.ndarray:
            return bits(torch.zeros(batch, width, dtype=shape.dtype))

        q, kv = shape.n_heads * shape.d_head, shape.n_kv * shape.d_head
        widths = (q, kv, kv, q, shape.d_model, *(shape.d_mlp,) * 3)
        self._work = (x, *map(memory, widths))

    def __call__(
        self,
        resid: np.ndarray,
        turns: np.ndarray,
        layers: list[Held],
        seen: np.ndarray,
        scores: np.ndarray,
        turned: np.ndarray,
    ) -> None:
        """`resid` is changed in place, x written."""
        caches = np.array([layer.addresses() for layer in layers], np.int64)
        f = self._framed
        self._blocks(
            f.addresses, self._norms, caches, (resid, *self._work), turns,
            layers[0].length, seen, scores, turned, *self._constants, f.scratch(), *f.tags,
        )  # fmt: skip
        for layer in layers:
            layer.advance(1)


def made(model: nn.Module, shape: Shape, batch: int, x: np.ndarray) -> Whole | None:
    """The call, bound to `x`, the norm's output; None where a linear is no product of its kind."""
    blocks = decoder_blocks(model)
    linears = [block.get_submodule(path) for block in blocks for path in PATHS]
    products = [m.prepared for m in linears if isinstance(m, Gated) and not m.count]
    bound = [product for product in products if product is not None]
    if len(bound) < len(linears):
        return None
    frames = framed(bound)
    if frames is None:
        return None
    frames = frames._replace(addresses=frames.addresses.reshape(len(blocks), len(PATHS)))
    found = [
        block.get_submodule(name).get_parameter("weight").detach().float()
        for block in blocks
        for name in ("input_layernorm", "post_attention_layernorm")
    ]
    found.append(model.get_submodule("model.norm").get_parameter("weight").detach().float())
    return Whole(shape, batch, frames, torch.stack(found).numpy(), x)
