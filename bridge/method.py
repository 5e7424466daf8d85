"""A method is a value: its fields are its hyperparameters, its call is the algorithm."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol, runtime_checkable

from bridge.component import Component
from bridge.operators import Affine, LinearOperator, Weight
from bridge.statistics import Statistic


@runtime_checkable
class Method(Protocol):
    """weight ↦ cheaper operator, given what was seen of the inputs.

    `statistic` says what must be known of a layer's inputs; `seen` is its state after the
    calibration tokens. Laws, tested over the whole roster: the weight is left alone; the same
    weight and statistic give the same operator, bit by bit; its shape is the weight's; it
    stores fewer parameters or fewer bits. Linears that read the same tensor share one state: it
    is never written into. What had to be done beyond the formula is in the operator's `note`.
    """

    statistic: ClassVar[Statistic[Any]]

    def __call__(self, weight: Weight, seen: Any) -> LinearOperator:
        """Replace `weight` by a cheaper operator. Never in place."""
        ...


@runtime_checkable
class ComponentMethod(Protocol):
    """The same for a whole attention or MLP, whose matrices are replaced together."""

    def watch(self, component: Component) -> AbstractContextManager[Any]:
        """Hooks, and the state that they fill, while the dense block reads the calibration text.

        The state is handed to `__call__` after the context is left.
        """
        ...

    def __call__(self, component: Component, state: Any) -> Mapping[str, LinearOperator | Affine]:
        """Cheaper operators by role ("q", "down", …); a role that is not in it stays dense.

        The linear's bias stays under a LinearOperator; an Affine brings another.
        """
        ...


AnyMethod = Method | ComponentMethod | Mapping[str, Method]
"""One for all linears, one for whole components, or one a linear, by name."""
