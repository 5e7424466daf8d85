"""Operators folded back into linears: one matrix each, which any tool can read."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bridge.operators import Affine, LinearOperator, Operator, Weight
from bridge.sites import operators
from mech.errors import BadInput


def folded(model: nn.Module) -> dict[str, nn.Linear]:
    """Every operator of `model` as a linear, by name. Raises BadInput where one has no matrix."""
    return {name: linear(*matrix(op, name)) for name, op in operators(model).items()}


def matrix(operator: Operator, name: str) -> tuple[Weight, Float[Tensor, " d_out"] | None]:
    """The matrix in force, and the bias where there is one."""
    term, bias = opened(operator, name)
    return term.dense(), bias


def opened(operator: Operator, name: str) -> tuple[LinearOperator, Float[Tensor, " d_out"] | None]:
    """The operator without its bias, and the bias. Raises BadInput where it has no matrix."""
    bias = operator.bias if isinstance(operator, Affine) else None
    term = operator.term if isinstance(operator, Affine) else operator
    if not isinstance(term, LinearOperator):
        raise BadInput(f"{name}: a {type(term).__name__} has no matrix to save")
    return term, bias


def linear(weight: Weight, bias: Float[Tensor, " d_out"] | None) -> nn.Linear:
    """The linear that holds them, without a copy and without gradients."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made


def zeros(like: LinearOperator) -> Weight:
    """The zero matrix of an operator's shape."""
    return torch.zeros_like(like.matrix())
