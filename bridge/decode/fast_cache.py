"""A cache with room to grow: a token is written in place where Hugging Face copies all before."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

States = Float[Tensor, "batch n_kv seq d_head"]
ROOM = 128
"""Least number of places behind what is there."""


class Held(DynamicLayer):
    """Keys and values of one block in buffers [batch, n_kv, room, d_head], room >= length.

    `keys` and `values` are views of what is filled, so that whoever reads, crops, reorders or
    extends a `DynamicLayer` does the same here.
    """

    def __init__(self):
        self._buffers: dict[str, Tensor | None] = {"keys": None, "values": None}
        self._lengths = {"keys": 0, "values": 0}
        self._arrays: tuple[np.ndarray, np.ndarray] | None = None
        self._addresses: tuple[int, int, int] | None = None
        super().__init__()

    @classmethod
    def of(cls, layer: DynamicLayer) -> "Held":
        """A layer that holds what `layer` does."""
        held = cls()
        held.dtype, held.device, held.is_initialized = layer.dtype, layer.device, True
        held.keys, held.values = layer.keys, layer.values
        return held

    @property
    def keys(self) -> States | None:
        """What is filled."""
        return self._filled("keys")

    @keys.setter
    def keys(self, states: States | None) -> None:
        self._hold("keys", states)

    @property
    def values(self) -> States | None:
        """What is filled."""
        return self._filled("values")

    @values.setter
    def values(self, states: States | None) -> None:
        self._hold("values", states)

    def update(
        self, key_states: States, value_states: States, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Writes behind what is filled."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.length
        end = begin + key_states.shape[-2]
        if end > self.room:
            self._grow(end, key_states)
        for name, states in (("keys", key_states), ("values", value_states)):
            buffer = self._buffers[name]
            assert buffer is not None
            buffer[:, :, begin:end] = states
        self.advance(end - begin)
        keys, values = self.keys, self.values
        assert keys is not None
        assert values is not None
        return keys, values

    @property
    def length(self) -> int:
        """Tokens held."""
        return self._lengths["keys"]

    def advance(self, tokens: int) -> None:
        """So many more have been written."""
        for name in self._lengths:
            self._lengths[name] += tokens

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    @property
    def room(self) -> int:
        """Tokens that there are places for."""
        keys, values = self._buffers["keys"], self._buffers["values"]
        if keys is None or values is None or keys.dim() != 4 or values.dim() != 4:
            return 0
        return min(keys.shape[2], values.shape[2])

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Both buffers, with room for one more token, for compiled code that writes it there."""
        if self.length >= self.room:
            keys = self.keys
            assert keys is not None
            self._grow(self.length + 1, keys)
        if self._arrays is None:
            keys, values = (_shared(self._buffers[name]) for name in ("keys", "values"))
            self._arrays = keys, values
        return self._arrays

    def addresses(self) -> tuple[int, int, int]:
        """Of both buffers, with room for one more token, and that room."""
        keys, values = self.arrays()
        if self._addresses is None:
            self._addresses = keys.ctypes.data, values.ctypes.data, self.room
        return self._addresses

    def _filled(self, name: str) -> Tensor | None:
        buffer = self._buffers[name]
        return (
            buffer if buffer is None or buffer.dim() != 4 else buffer[:, :, : self._lengths[name]]
        )

    def _hold(self, name: str, states: States | None) -> None:
        self._arrays = self._addresses = None
        self._buffers[name] = states
        # Keys are cropped before values are: each has a length of its own.
        filled = states is not None and states.dim() == 4
        self._lengths[name] = states.shape[-2] if states is not None and filled else 0

    def _grow(self, needed: int, like: States) -> None:
        """Room for `needed` tokens, and half as many again."""
        filled = self.length
        for name, buffer in self._buffers.items():
            batch, n_kv, _, d_head = like.shape
            wider = like.new_zeros(batch, n_kv, max(needed + ROOM, needed * 3 // 2), d_head)
            if buffer is not None and filled:
                wider[:, :, :filled] = buffer[:, :, :filled]
            self._buffers[name] = wider
        self._arrays = self._addresses = None


def held(cache: Cache) -> list[Held] | None:
    """The layers of a cache, in its place made growing ones; None where they are of another kind.

    Sliding, quantised and off-loaded layers are, and those that hold nothing yet.
    """
    layers = cache.layers
    if all(type(layer) is Held for layer in layers):
        return layers  # type: ignore[return-value]
    for layer in layers:
        # Not a subclass: those slide, quantise or leave the device.
        if type(layer) not in (Held, DynamicLayer):
            return None
        assert isinstance(layer, DynamicLayer)
        if not layer.get_seq_length():
            return None
    layers[:] = [x if type(x) is Held else Held.of(x) for x in layers]  # type: ignore[arg-type]
    return layers  # type: ignore[return-value]


def _shared(buffer: Tensor | None) -> np.ndarray:
    assert buffer is not None
    buffer = buffer.detach()
    return (buffer.view(torch.uint16) if buffer.dtype == torch.bfloat16 else buffer).numpy()
