"""Matrices that a family does not keep in linears, shown as linears: Conv1D and stacks of experts.

GPT-2 keeps a linear's weight transposed, in a `Conv1D`; mixtures of experts keep the matrices of
all experts of a block in one 3-D parameter. Here they are linears whose weights are views of the
same numbers, so nothing is copied, and every method meets d_out rows and d_in columns.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech.blocks import decoder_blocks
from mech.quiet import quiet


class Experts(nn.ModuleList):
    """E_0, E_1, …, each two linears, `gate_up_proj` and `down_proj`, in the place of a stack."""

    def __init__(self, stacked: nn.Module):
        stock: Any = stacked
        super().__init__(_expert(stock, index) for index in range(stock.down_proj.shape[0]))
        # In a tuple, so that it is no sub-module; without its numbers, which the linears have.
        self.stock = (_hollow(stock),)


class RoutedExperts(Experts):
    """y_t = Σ_k w_tk E_{i_tk}(x_t), in the order of the experts.

    transformers' own implementations add in other orders, which moves last bits.
    """

    def forward(
        self,
        x: Float[Tensor, "tokens d_model"],
        chosen: Int[Tensor, "tokens k"],
        weights: Float[Tensor, "tokens k"],
    ) -> Float[Tensor, "tokens d_model"]:
        stock: Any = self.stock[0]
        total = torch.zeros_like(x)
        for index, expert in enumerate(self):
            pair: Any = expert
            token, place = torch.where(chosen == index)
            if len(token):
                y = pair["down_proj"](stock._apply_gate(pair["gate_up_proj"](x[token])))
                total.index_add_(0, token, (y * weights[token, place, None]).to(total.dtype))
        return total


class SortedExperts(Experts):
    """Llama 4's: x holds n copies of the tokens, already weighted, and copy i is for expert i."""

    def forward(self, x: Float[Tensor, "copies d_model"]) -> Float[Tensor, "copies d_model"]:
        stock: Any = self.stock[0]
        total = torch.zeros_like(x)
        for expert, own, out in zip(self, x.chunk(len(self)), total.chunk(len(self)), strict=True):
            pair: Any = expert
            # A token that another expert was chosen for is all zeros here, and stays so.
            mine = own.any(-1)
            if mine.any():
                gate, up = pair["gate_up_proj"](own[mine]).chunk(2, dim=-1)
                out[mine] = pair["down_proj"](up * stock.act_fn(gate))
        return total


def shown(module: nn.Module) -> nn.Module | None:
    """The linear, or the experts of linears, that show what `module` holds; None for any other."""
    if type(module).__name__ == "Conv1D":
        conv: Any = module
        return _linear(conv.weight.mT, conv.bias, conv.training)
    if type(module).__name__ == "Llama4TextExperts":
        return SortedExperts(module)
    # What transformers' `use_experts_implementation` says of a stack of experts.
    ways = [getattr(module, f"has_{part}", None) for part in ("gate", "post_expert_norm")]
    return RoutedExperts(module) if ways == [True, False] else None


@contextmanager
def closed(model: nn.Module) -> Iterator[None]:
    """Linears that `shown` made are what the family keeps inside, and linears again after.

    Only linears: an operator that stands for one has to be folded before. What is closed holds
    copies of the numbers.
    """
    before = close(model)
    try:
        yield
    finally:
        for path, module in before.items():
            decoder_blocks(model).set_submodule(path, module)


def close(model: nn.Module) -> dict[str, nn.Module]:
    """As `closed`, for good: `model` is of its family again. What stood there, by path."""
    blocks = decoder_blocks(model)
    before, inside = {}, {}
    stock = _stock(model)
    for path, opened in blocks.named_modules():
        if isinstance(opened, Experts):
            before[path], inside[path] = opened, _stacked(opened)
        elif isinstance(opened, nn.Linear) and type(stock.get(path)).__name__ == "Conv1D":
            before[path], inside[path] = opened, _convolution(stock[path], opened)
    for path, module in inside.items():
        blocks.set_submodule(path, module)
    return before


def _linear(weight: Tensor, bias: Tensor | None, training: bool) -> nn.Linear:
    d_out, d_in = weight.shape
    linear = nn.Linear(d_in, d_out, bias=bias is not None, device="meta").train(training)
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return linear


def _expert(stock: Any, index: int) -> nn.ModuleDict:
    pair = {}
    for name in ("gate_up_proj", "down_proj"):
        weight = getattr(stock, name)[index]
        bias = getattr(stock, f"{name}_bias", None)
        weight = weight.mT if _transposed(stock) else weight
        pair[name] = _linear(weight, None if bias is None else bias[index], stock.training)
    return nn.ModuleDict(pair)


def _transposed(stock: Any) -> bool:
    # Llama 4's says nothing of itself, and is.
    return bool(getattr(stock, "is_transposed", True))


def _hollow(stock: nn.Module) -> nn.Module:
    hollow = copy.copy(stock)
    hollow._parameters = {
        name: None if p is None else nn.Parameter(p.to("meta"), requires_grad=False)
        for name, p in stock._parameters.items()
    }
    return hollow


def _stacked(experts: Experts) -> nn.Module:
    stock = _hollow(experts.stock[0])
    for name in ("gate_up_proj", "down_proj"):
        linears: list[Any] = [expert[name] for expert in experts]  # type: ignore[index]
        weight = torch.stack([linear.weight for linear in linears])
        weight = weight.mT.contiguous() if _transposed(stock) else weight
        setattr(stock, name, nn.Parameter(weight, requires_grad=False))
        if getattr(stock, f"{name}_bias", None) is not None:
            bias = torch.stack([linear.bias for linear in linears])
            setattr(stock, f"{name}_bias", nn.Parameter(bias, requires_grad=False))
    return stock


def _convolution(stock: nn.Module, linear: nn.Linear) -> nn.Module:
    conv: Any = stock.train(linear.training)
    conv.weight = nn.Parameter(linear.weight.detach().mT.contiguous(), requires_grad=False)
    conv.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return conv


def _stock(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of the blocks as the family makes them, without numbers, by path."""
    made: Any = type(model)
    with torch.device("meta"), quiet():
        skeleton = made(copy.deepcopy(model.config))
    return dict(decoder_blocks(skeleton).named_modules())
