"""What the projections of a block read: its normed inputs, and the weights of its norms.

Dettmers et al. 2022, arXiv:2208.07339, look for outliers in the inputs of the attention
projections and of the first feed-forward matrix. Here these are the inputs of width d_model of the
first and the last linear of that width in a block: the first is attention's, the last the MLP's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mech.blocks import decoder_blocks
from mech.probes.outliers import LARGE


class Large:
    """large[2 · block + half][b, j]: real tokens of sequence b with |x_j| ≥ 6 in that input."""

    def __init__(self, real: Bool[Tensor, "batch seq"], blocks: int) -> None:
        self.real = real
        self.first: list[Int[np.ndarray, "batch d_model"] | None] = [None] * blocks
        self.last: list[Int[np.ndarray, "batch d_model"] | None] = [None] * blocks

    def see(self, block: int, x: Float[Tensor, "batch seq d_model"]) -> None:
        """The next input of that block."""
        large = (x.abs() >= LARGE) & self.real.to(x.device)[..., None]
        count = large.sum(dim=1).cpu().numpy()
        if self.first[block] is None:
            self.first[block] = count
        self.last[block] = count

    def counts(self) -> Int[np.ndarray, "batch layer d_model"] | None:
        """All of them; None where some block has no such linear."""
        seen = [count for pair in zip(self.first, self.last, strict=True) for count in pair]
        found = [count for count in seen if count is not None]
        return np.stack(found, axis=1) if len(found) == len(seen) else None


@contextmanager
def watching(model: PreTrainedModel, real: Bool[Tensor, "batch seq"]) -> Iterator[Large]:
    """Inside, every pass of the model is counted; after it, the model is as it was."""
    blocks = decoder_blocks(model)
    seen = Large(real, len(blocks))
    d_model = model.config.get_text_config(decoder=True).hidden_size
    handles = []
    try:
        for layer, block in enumerate(blocks):
            ends = _ends(block, d_model)
            for linear in ends:
                handles.append(linear.register_forward_pre_hook(_hook(seen, layer, real.shape)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _hook(seen: Large, layer: int, shape: torch.Size) -> Callable[[nn.Module, tuple], None]:
    def hook(_: nn.Module, args: tuple) -> None:
        x = args[0].detach()
        if x.shape[:-1].numel() == shape.numel():  # an expert's linear reads its own tokens only
            seen.see(layer, x.reshape(*shape, -1))

    return hook


def _ends(block: nn.Module, d_model: int) -> list[nn.Module]:
    """The first and the last linear that reads d_model numbers, in the order of definition."""
    reads = [m for m in block.modules() if _width(m) == d_model]
    return [reads[0], reads[-1]] if len(reads) > 1 else []


def _width(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.in_features
    return module.nx if isinstance(module, Conv1D) else None


def norm_weights(model: PreTrainedModel) -> dict[str, Float[np.ndarray, "layer d_model"]]:
    """Scales and shifts of the blocks' norms by name, float32; without those that are on disk."""
    found: dict[str, list[np.ndarray]] = {}
    blocks = decoder_blocks(model)
    d_model = model.config.get_text_config(decoder=True).hidden_size
    for block in blocks:
        for name, module in block.named_modules():
            if "norm" not in type(module).__name__.lower():
                continue
            for kind, weight in module.named_parameters(recurse=False):
                if weight.shape == (d_model,) and not weight.is_meta:
                    values = weight.detach().float().cpu().numpy()
                    found.setdefault(f"{name}.{kind}", []).append(values)
    return {name: np.stack(v) for name, v in found.items() if len(v) == len(blocks)}
