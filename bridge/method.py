"""A method is a value: its fields are its hyperparameters, its call is the algorithm."""

from typing import Any, ClassVar, Protocol, runtime_checkable

from bridge.operators import LinearOperator, Weight
from bridge.statistics import Statistic


@runtime_checkable
class Method(Protocol):
    """weight ↦ cheaper operator, given what was seen of the inputs.

    `statistic` says what must be known of a layer's inputs; `seen` is its state after the
    calibration tokens. Laws, tested over the whole roster: the weight is left alone; the same
    weight and statistic give the same operator, bit by bit; its shape is the weight's; it
    stores fewer parameters.
    """

    statistic: ClassVar[Statistic[Any]]

    def __call__(self, weight: Weight, seen: Any) -> LinearOperator:
        """Replace `weight` by a cheaper operator. Never in place."""
        ...
