"""Low-rank factors learn beside frozen quantised weights: y = W̃ x + L R x, L and R trained."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from bridge.operators import LinearOperator, LowRank, Weight
from bridge.sites import linears
from bridge.toggle import swap
from mech.errors import BadInput


class Adapted(nn.Linear):
    """x ↦ W̃ x + L R x + b; only L [d_out, rank] and R [rank, d_in] have gradients."""

    def __init__(
        self, weight: Weight, left: Float[Tensor, "d_out rank"], right: Float[Tensor, "rank d_in"]
    ):
        super().__init__(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.left, self.right = nn.Parameter(left.clone()), nn.Parameter(right.clone())

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + (input @ self.right.mT) @ self.left.mT


def started(operator: LinearOperator, rank: int, generator: torch.Generator) -> Adapted:
    """From the operator's own low-rank term; without one L = 0 and R uniform, as LoRA starts.

    R has the variance 1 / (3 d_in) of `nn.Linear`'s default, in a format of at least 32 bits.
    """
    dense = operator.dense()
    terms = [module for module in operator.modules() if isinstance(module, LowRank)]
    if terms:
        left, right = terms[0].left.detach(), terms[0].right.detach()
        return Adapted(dense - terms[0].dense(), left, right)
    bound = dense.shape[1] ** -0.5
    right = (2 * torch.rand(rank, dense.shape[1], generator=generator) - 1) * bound
    return Adapted(dense, dense.new_zeros(dense.shape[0], rank), right.to(dense))


@contextmanager
def adapted(
    model: PreTrainedModel, operators: Mapping[str, LinearOperator], rank: int, seed: int
) -> Iterator[list[nn.Parameter]]:
    """The model with adapters inside; gives their factors. Raises BadInput beside a bias."""
    generator = torch.Generator().manual_seed(seed)
    found = linears(model)
    if biased := [name for name in operators if found[name].bias is not None]:
        raise BadInput(f"{biased[0]} has a bias: adapters are for linears without one here")
    adapters = {name: started(op, rank, generator) for name, op in operators.items()}
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.requires_grad_(False)
    try:
        with swap(model, adapters):
            yield [factor for one in adapters.values() for factor in (one.left, one.right)]
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])


def tune(
    model: PreTrainedModel,
    factors: list[nn.Parameter],
    windows: Int[Tensor, "steps seq"],
    rate: float,
) -> list[float]:
    """One step of Adam a window, at a constant rate; the loss of each window before its step."""
    optimizer = torch.optim.Adam(factors, lr=rate)
    losses = []
    for window in windows:
        logits = model(input_ids=window[None].to(model.device), use_cache=False).logits[0, :-1]
        loss = nn.functional.cross_entropy(logits.float(), window[1:].to(logits.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
