"""One operation, several implementations, one contract."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Generic, Literal, ParamSpec, TypeVar

import torch

# Before any kernel: whatever changes on disk from now on is not what runs in this process.
import ctr_kernels.sources  # noqa: F401

P = ParamSpec("P")
R = TypeVar("R")
Backend = Literal["reference", "cpu", "triton"]


class Unsupported(NotImplementedError):
    """Raised by an implementation to decline these arguments: a dtype, a shape, a device."""


@dataclass(frozen=True)
class Ran(Generic[R]):
    """A value, and the implementation that computed it."""

    value: R
    backend: Backend


@dataclass(frozen=True)
class Op(Generic[P, R]):
    """An operation: its definition, and the kernels that promise to agree with it.

    `reference` is the definition: plain PyTorch, any device, any dtype. Called, an `Op` takes
    the kernel of its arguments' device, and the definition where that kernel is absent or
    declines with `Unsupported`; every other exception passes through. Asked for one by name,
    `op.on("triton")`, nobody falls back.

    Examples:
        >>> square = Op(reference=lambda x: x * x)
        >>> square.run(torch.tensor([2.0, 3.0])).backend
        'reference'
    """

    reference: Callable[P, R]
    cpu: Callable[P, R] | None = None
    triton: Callable[P, R] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.run(*args, **kwargs).value

    def run(self, *args: P.args, **kwargs: P.kwargs) -> Ran[R]:
        """As a call, and says which implementation computed the value."""
        name: Backend = "cpu" if all(_on_cpu(a) for a in (*args, *kwargs.values())) else "triton"
        kernel = self.cpu if name == "cpu" else self.triton
        if kernel is not None:
            try:
                return Ran(kernel(*args, **kwargs), name)
            except Unsupported:
                pass
        return Ran(self.reference(*args, **kwargs), "reference")

    def on(self, backend: Backend) -> Callable[P, R]:
        """The implementation of that name. Raises `Unsupported` where there is none."""
        implementation = {"reference": self.reference, "cpu": self.cpu, "triton": self.triton}.get(
            backend
        )
        if implementation is None:
            raise Unsupported(f"no {backend} implementation")
        return implementation

    @property
    def kernels(self) -> tuple[Backend, ...]:
        """The implementations that have the definition to answer to."""
        pairs: tuple[tuple[Backend, object], ...] = (("cpu", self.cpu), ("triton", self.triton))
        return tuple(name for name, kernel in pairs if kernel is not None)


def deferred(module: str, like: Callable[P, R]) -> Callable[P, R]:
    """The function named as `like` in `module`, imported when it is first called.

    A compiler (numba, triton) takes a second to import and may be missing: then the function
    declines with `Unsupported`.
    """

    @wraps(like)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            implementation = getattr(importlib.import_module(module), like.__name__)
        except ImportError as error:
            raise Unsupported(f"{module} cannot be imported: {error}") from error
        return implementation(*args, **kwargs)

    return call


def _on_cpu(argument: object) -> bool:
    """Tensors, and what is made of tensors and says where it is (`Rows`)."""
    device = getattr(argument, "device", None)
    return not isinstance(device, torch.device) or device.type == "cpu"
