"""Bytes of tensors on disk, of each form and of the shards, from shapes and a method alone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from bridge.planned import spending
from experiments.planning.shapes import WIDTH, Linear, Shape

BITS = 8 * WIDTH


class Disk(NamedTuple):
    """Bytes of tensors; headers, configuration and tokenizer lie beside them.

    adapter: None where the method leaves no low-rank term.
    """

    dense: int
    packed: int
    shards: int
    adapter: int | None

    @property
    def base_and_adapter(self) -> int | None:
        """base+lora: the rest as a dense model, and the low-rank terms."""
        return None if self.adapter is None else self.dense + self.adapter

    def of(self, form: str) -> int | None:
        """The bytes of a form by its name on the command line."""
        return {
            "dense": self.dense,
            "packed": self.packed,
            "base+lora": self.base_and_adapter,
        }[form]


def disk(shape: Shape, method: Any) -> Disk:
    """What `checkpoint.save` and `Shards` write of a model compressed by `method`.

    Exact where no weight that is kept is zero and the method spends what `bridge.planned` says.
    Raises BadInput where that does not know the method.
    """
    linears = shape.linears.values()
    held = sum(stored(linear, method) for linear in linears)
    replaced = sum(linear.numbers + _bias(linear) for linear in linears)
    lora = adapter_numbers(list(linears), method)
    return Disk(
        dense=shape.weights,
        packed=shape.weights - WIDTH * replaced + held,
        shards=held,
        adapter=WIDTH * lora or None,
    )


def stored(linear: Linear, method: Any) -> int:
    """Bytes of an operator as it is stored: every matrix in whole bytes, and the bias."""
    bits = [spending(method, *part, BITS).bits for part in linear.parts]
    return sum(-(-some // 8) for some in bits) + WIDTH * _bias(linear)


def adapter_numbers(linears: Sequence[Linear], method: Any) -> int:
    """Numbers of an adapter: r Σ (d_out + d_in), r the largest rank, over those that have one."""
    ranks = [_rank(linear, method) for linear in linears]
    widths = [linear.d_out + linear.d_in for linear in linears]
    return max(ranks, default=0) * sum(w for w, r in zip(widths, ranks, strict=True) if r)


def adapted(linear: Linear, method: Any) -> int:
    """Numbers of the factors before they are padded: Σ r_i (d_out + d_in), r_i of matrix i."""
    return _rank(linear, method) * (linear.d_out + linear.d_in)


def _rank(linear: Linear, method: Any) -> int:
    """Σ r_i: `left` of several matrices is block diagonal."""
    return sum(rank_of(method, part) for part in linear.parts)


def adapted_terms(linear: Linear, method: Any) -> int:
    """Numbers of the low-rank terms, each matrix its own."""
    return sum(rank_of(method, part) * sum(part) for part in linear.parts)


def rank_of(method: Any, part: tuple[int, int]) -> int:
    """r of the low-rank term of one matrix; 0 without one."""
    return spending(method, *part, BITS).inner


def _bias(linear: Linear) -> int:
    return linear.d_out if linear.bias else 0
