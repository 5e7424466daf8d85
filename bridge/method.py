"""A method is a value: its fields are its hyperparameters, its call is the algorithm."""

from typing import Protocol, TypeVar, runtime_checkable

from bridge.operators import LinearOperator, Weight
from bridge.statistics import Statistic

S = TypeVar("S")


@runtime_checkable
class Method(Protocol[S]):
    """weight ↦ cheaper operator, given what was seen of the inputs.

    Laws, tested over the whole roster: the weight is left alone; the same weight and statistic
    give the same operator, bit by bit; its shape is the weight's; it stores fewer parameters.
    """

    @property
    def statistic(self) -> Statistic[S]:
        """What must be known of the layer's inputs."""
        ...

    def __call__(self, weight: Weight, seen: S) -> LinearOperator:
        """Replace `weight` by a cheaper operator. Never in place."""
        ...
