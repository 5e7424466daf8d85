"""A matrix of which only some rows and columns are left: what pruning whole neurons leaves."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bridge.operators import LinearOperator, Weight
from bridge.serial import Kind, register
from mech.errors import BadInput


class Sliced(LinearOperator):
    """x ↦ y with y[rows] = weight x[columns] and y = 0 elsewhere, of shape (d_out, d_in).

    `rows` and `columns` are strictly increasing indices; None means all of them. The input is
    gathered, multiplied by a smaller dense matrix, and scattered into zeros, so what reads the
    output needs no change: a rotary embedding still finds every pair of coordinates in its
    place. What is stored is `weight` and, in `bits`, a bitmask for each side that is sliced;
    a runtime that also narrows what comes after would save there, too. Raises BadInput where
    indices do not fit the weight or lie outside the shape.
    """

    weight: Tensor
    rows: Tensor | None
    columns: Tensor | None

    def __init__(
        self,
        weight: Float[Tensor, "rows columns"],
        *,
        shape: tuple[int, int],
        rows: Int[Tensor, " n_rows"] | None = None,
        columns: Int[Tensor, " n_columns"] | None = None,
    ):
        super().__init__()
        own = weight.detach().clone(memory_format=torch.contiguous_format)
        self.register_buffer("weight", own)
        for axis, (name, index) in enumerate((("rows", rows), ("columns", columns))):
            _check(name, index, weight.shape[axis], shape[axis])
            self.register_buffer(name, None if index is None else index.detach().clone())
        self._shape = shape

    @property
    def shape(self) -> tuple[int, int]:
        return self._shape

    def matrix(self) -> Weight:
        wide = _scatter(self.weight, self.columns, self.shape[1])
        return _scatter(wide.mT, self.rows, self.shape[0]).mT

    def product(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        if self.columns is not None:
            x = x.index_select(-1, self.columns)
        return _scatter(torch.nn.functional.linear(x, self.weight), self.rows, self.shape[0])

    def parameters_kept(self) -> int:
        return self.weight.numel()

    def bits(self) -> int:
        sides = zip(self.shape, (self.rows, self.columns), strict=True)
        places = sum(size for size, index in sides if index is not None)
        return self.weight.numel() * self.weight.element_size() * 8 + places

    def flops(self) -> int:
        return 2 * self.weight.numel()


def _scatter(x: Tensor, index: Tensor | None, size: int) -> Tensor:
    """x at `index` of a last axis of `size`, zero elsewhere."""
    if index is None:
        return x
    return x.new_zeros(*x.shape[:-1], size).index_copy(-1, index, x)


def _check(name: str, index: Tensor | None, kept: int, size: int) -> None:
    if index is None:
        if kept != size:
            raise BadInput(f"{kept} {name} of {size} are left: say which")
        return
    inside = len(index) == 0 or (int(index[0]) >= 0 and int(index[-1]) < size)
    if len(index) != kept or not inside or not bool((index.diff() > 0).all()):
        raise BadInput(
            f"{name} {index.tolist()[:5]}…: {kept} increasing indices below {size} are needed"
        )


def _stored(operator: Sliced) -> dict[str, Tensor]:
    tensors = {"weight": operator.weight, "rows": operator.rows, "columns": operator.columns}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


register(
    "sliced",
    Kind(
        Sliced,
        _stored,
        lambda spec, t, _: Sliced(
            t["weight"], shape=tuple(spec["shape"]), rows=t.get("rows"), columns=t.get("columns")
        ),
        attributes=lambda op: {"shape": list(op.shape)},
    ),
)
