"""Cheaper stand-ins for a weight matrix, and what each of them stores and computes.

Buffers hold the numbers, so `.to(device, dtype)` and `state_dict` work as for any module. A
term can be switched off (`term.active = False`): it then acts as the zero matrix, and on again,
which restores it exactly. Counts are of what is stored, whether a term is on or off.
"""

import abc
from collections.abc import Iterable
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor, nn

Weight = Float[Tensor, "d_out d_in"]


class Operator(nn.Module, abc.ABC):
    """A map from inputs to outputs that stands where a linear stood."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""

    @abc.abstractmethod
    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]: ...

    @abc.abstractmethod
    def parameters_kept(self) -> int:
        """Numbers of the weight's format that are stored; a bias is not counted."""

    @abc.abstractmethod
    def bits(self) -> int:
        """Bits of those numbers and of the indices that place them."""

    @abc.abstractmethod
    def flops(self) -> int:
        """Floating-point operations a token, two a multiply-add, of the arithmetic needed."""

    def inner(self) -> int:
        """Numbers a token between two products: written by the first and read by the second."""
        return 0

    def bytes_moved(self) -> int:
        """⌈bits / 8⌉ + e (d_in + d_out + 2 inner), at batch 1.

        Weights, places and bias are read once, the input once whatever the number of terms, the
        output is written once; e bytes a number, those of the format that the values are in. It
        is what the arithmetic has to move between memory and processor, not what a simulation
        of a sparse matrix by a dense one moves.
        """
        floats = (x for x in self.buffers() if x.is_floating_point())
        width = next(floats).element_size()
        return -(-self.bits() // 8) + width * (sum(self.shape) + 2 * self.inner())


class LinearOperator(Operator):
    """One that has a matrix: `op(x) == x @ op.dense().mT`, on or off."""

    active: bool = True
    note: str = ""
    """What the method that made it had to do beyond its formula; empty as a rule."""

    @abc.abstractmethod
    def matrix(self) -> Weight:
        """The matrix stored."""

    @abc.abstractmethod
    def product(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """x Wᵀ with the matrix stored."""

    def dense(self) -> Weight:
        """The matrix in force: zero where a term is off."""
        return self.matrix() if self.active else torch.zeros_like(self.matrix())

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        if self.active:
            return self.product(x)
        return x.new_zeros(*x.shape[:-1], self.shape[0])

    def __add__(self, other: "LinearOperator") -> "Sum":
        return Sum([self, other])


def _own(tensor: Tensor) -> Tensor:
    """A copy, row by row: another order in memory would move the last bits of products."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


class Dense(LinearOperator):
    """The whole matrix."""

    weight: Tensor

    def __init__(self, weight: Weight):
        super().__init__()
        self.register_buffer("weight", _own(weight))

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1]

    def matrix(self) -> Weight:
        return self.weight

    def product(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return nn.functional.linear(x, self.weight)

    def parameters_kept(self) -> int:
        return self.weight.numel()

    def bits(self) -> int:
        return self.weight.numel() * self.weight.element_size() * 8

    def flops(self) -> int:
        return 2 * self.weight.numel()


class Sparse(Dense):
    """A matrix most of whose entries are zero. Simulated: stored and multiplied as a dense one.

    The counts are of the nonzero entries and of a bitmask that places them, which is what a
    sparse format would hold; the time and memory that this version takes are the dense ones.
    """

    def __init__(self, weight: Weight):
        # -0 + 0 = 0: a mask that was multiplied leaves negative zeros, whose bits are not nothing.
        super().__init__(weight + 0)

    def parameters_kept(self) -> int:
        return int(self.weight.count_nonzero())

    def bits(self) -> int:
        return self.parameters_kept() * self.weight.element_size() * 8 + self.weight.numel()

    def flops(self) -> int:
        return 2 * self.parameters_kept()


class LowRank(LinearOperator):
    """left @ right, multiplied from the right: two thin products.

    Examples:
        >>> low = LowRank(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]]))
        >>> low.dense().tolist(), low(torch.tensor([1.0, 1.0])).tolist()
        ([[3.0, 4.0], [6.0, 8.0]], [7.0, 14.0])
    """

    left: Tensor
    right: Tensor

    def __init__(self, left: Float[Tensor, "d_out rank"], right: Float[Tensor, "rank d_in"]):
        super().__init__()
        self.register_buffer("left", _own(left))
        self.register_buffer("right", _own(right))

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """Columns of `left`."""
        return self.left.shape[1]

    def inner(self) -> int:
        return self.rank

    def matrix(self) -> Weight:
        return self.left @ self.right

    def product(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return nn.functional.linear(nn.functional.linear(x, self.right), self.left)

    def parameters_kept(self) -> int:
        return self.left.numel() + self.right.numel()

    def bits(self) -> int:
        return self.parameters_kept() * self.left.element_size() * 8

    def flops(self) -> int:
        return 2 * self.parameters_kept()


class _Composite(LinearOperator):
    """Several operators as one; counts add."""

    def __init__(self, terms: Iterable[LinearOperator]):
        super().__init__()
        self.terms = nn.ModuleList(terms)

    def each(self) -> list[LinearOperator]:
        """The parts, in order."""
        return [term for term in self.terms if isinstance(term, LinearOperator)]

    def parameters_kept(self) -> int:
        return sum(term.parameters_kept() for term in self.each())

    def bits(self) -> int:
        return sum(term.bits() for term in self.each())

    def flops(self) -> int:
        return sum(term.flops() for term in self.each())

    def inner(self) -> int:
        return sum(term.inner() for term in self.each())


class Sum(_Composite):
    """The sum of terms of one shape."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.each()[0].shape

    def matrix(self) -> Weight:
        return reduce(torch.add, (term.dense() for term in self.each()))

    def product(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return reduce(torch.add, (term(x) for term in self.each()))


class Stack(_Composite):
    """Operators whose outputs follow each other: a fused q, k, v, each compressed on its own."""

    @property
    def shape(self) -> tuple[int, int]:
        return sum(term.shape[0] for term in self.each()), self.each()[0].shape[1]

    def matrix(self) -> Weight:
        return torch.cat([term.dense() for term in self.each()])

    def product(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return torch.cat([term(x) for term in self.each()], dim=-1)


class Affine(Operator):
    """x ↦ term(x) + bias: the bias of the linear it replaces, which no switch touches."""

    bias: Tensor

    def __init__(self, term: LinearOperator, bias: Float[Tensor, " d_out"]):
        super().__init__()
        self.term = term
        self.register_buffer("bias", bias.detach().clone())

    @property
    def shape(self) -> tuple[int, int]:
        return self.term.shape

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return self.term(x) + self.bias

    def parameters_kept(self) -> int:
        return self.term.parameters_kept()

    def bits(self) -> int:
        return self.term.bits() + self.bias.numel() * self.bias.element_size() * 8

    def flops(self) -> int:
        return self.term.flops() + self.bias.numel()

    def inner(self) -> int:
        return self.term.inner()
