"""One token a sequence through a Llama-shaped model: linears, and three compiled calls a block."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bridge.decode.fast_cache import Held
from bridge.decode.fast_linear import Bind, Bound, bits, bound
from bridge.decode.fast_shape import POSITIONS, Shape, angles
from bridge.decode.fast_whole import made
from ctr_kernels.one_token import cpu
from mech.blocks import decoder_blocks

F4 = np.float32


class Block(NamedTuple):
    """A block's norms and bound linears."""

    before: np.ndarray
    q: Bound
    k: Bound
    v: Bound
    o: Bound
    between: np.ndarray
    gate: Bound
    up: Bound
    down: Bound


class Step:
    """h ← h + W_o attend(W_qkv norm h), h ← h + W_d (SiLU(W_g norm h) ∘ W_u norm h), a block each.

    Norms, sums over the stream, rotation and attention in float32, the stream too; what linears
    read and write, keys and values in the model's dtype. All memory is bound once, for `batch`
    sequences; `bind` says how a linear is called.
    """

    def __init__(self, model: nn.Module, shape: Shape, batch: int, bind: Bind = bound):
        self.model, self.shape, self.batch = model, shape, batch

        def memory(width: int, dtype: torch.dtype = shape.dtype) -> Tensor:
            return torch.zeros(batch, width, dtype=dtype)

        wide = memory(shape.d_model, torch.float32)
        x, mixed = memory(shape.d_model), memory(shape.n_heads * shape.d_head)
        hidden = memory(shape.d_mlp)
        self._resid, self._nothing = wide, bits(memory(shape.d_model))
        self._arrays = bits(wide), bits(x), bits(mixed), bits(hidden)
        self._turned = np.zeros((shape.n_heads + shape.n_kv, shape.d_head), F4)
        self._scores = np.zeros(0, F4)
        self._seen = np.zeros((batch, 0), np.bool_)
        self._angles = angles(model, POSITIONS)
        self.blocks = [_bound(block, bind, x, mixed, hidden) for block in decoder_blocks(model)]
        self._norm = _weight(model.get_submodule("model.norm"))
        self.head = bind(model.get_submodule("lm_head"), x)
        self.whole = made(model, shape, batch, self._arrays[1]) if bind is bound else None
        self._embedding = model.get_input_embeddings().weight.detach()  # type: ignore[operator]

    def __call__(
        self,
        ids: Int[Tensor, " batch"],
        layers: list[Held],
        positions: Int[Tensor, " batch"],
        seen: Bool[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch d_vocab"]:
        """Logits of the next token; keys and values of this one are written behind the others.

        `seen`: places that are attended to, all where None. The result is overwritten by the next
        call where the head is bound to memory that stays.
        """
        shape, resid = self.shape, self._arrays[0]
        turns = self._turns(positions)
        mask, scores = self._room(layers[0].length, seen)
        self._resid.copy_(self._embedding[ids])
        if self.whole is not None:
            self.whole(resid, turns, layers, mask, scores, self._turned)
        else:
            self._by_parts(turns, layers, mask, scores)
        logits = torch.from_numpy(self.head())
        return logits.view(shape.dtype) if shape.dtype == torch.bfloat16 else logits

    def _by_parts(
        self, turns: np.ndarray, layers: list[Held], mask: np.ndarray, scores: np.ndarray
    ) -> None:
        """Linears called one by one: dense ones, or kernels of several formats."""
        resid, x, mixed, hidden = self._arrays
        eps, scale = F4(self.shape.eps), F4(self.shape.d_head**-0.5)
        delta, length = self._nothing, layers[0].length
        for block, layer in zip(self.blocks, layers, strict=True):
            cpu.add_norm(resid, delta, block.before, eps, x)
            q, k, v = block.q(), block.k(), block.v()
            keys, values = layer.arrays()
            cpu.attend(
                q, k, v, turns, keys, values, length, mask, scale, scores, self._turned, mixed
            )  # fmt: skip
            layer.advance(1)
            delta = block.o()
            cpu.add_norm(resid, delta, block.between, eps, x)
            cpu.gate(block.gate(), block.up(), hidden)
            delta = block.down()
        cpu.add_norm(resid, delta, self._norm, eps, x)

    def _turns(self, positions: Int[Tensor, " batch"]) -> np.ndarray:
        """cos and sin of these positions."""
        last = int(positions.max())
        if last >= len(self._angles):
            self._angles = angles(self.model, 2 * last)
        return self._angles[positions].numpy()

    def _room(
        self, length: int, seen: Bool[Tensor, "batch length"] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mask, and scores to work in, for `length` places and this token's."""
        if length >= len(self._scores):
            self._scores = np.zeros(2 * length + POSITIONS, F4)
            self._seen = np.ones((self.batch, 2 * length + POSITIONS), np.bool_)
        if seen is None:
            self._seen[:, :length] = True
        else:
            self._seen[:, :length] = seen[:, :length].numpy()
        return self._seen, self._scores


def _bound(block: nn.Module, bind: Bind, x: Tensor, mixed: Tensor, hidden: Tensor) -> Block:
    def of(path: str, read: Tensor) -> Bound:
        return bind(block.get_submodule(path), read)

    return Block(
        before=_weight(block.get_submodule("input_layernorm")),
        q=of("self_attn.q_proj", x),
        k=of("self_attn.k_proj", x),
        v=of("self_attn.v_proj", x),
        o=of("self_attn.o_proj", mixed),
        between=_weight(block.get_submodule("post_attention_layernorm")),
        gate=of("mlp.gate_proj", x),
        up=of("mlp.up_proj", x),
        down=of("mlp.down_proj", hidden),
    )


def _weight(norm: nn.Module) -> np.ndarray:
    return norm.get_parameter("weight").detach().float().contiguous().numpy()
