"""Two files of `worker.py`, method by method: masks, factors, codes, lines."""

from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open
from torch import Tensor


class Difference(NamedTuple):
    """masks: bytes of masks and codes that differ; factors: the largest relative difference of a
    tensor of floats, ‖a - b‖ / ‖a‖; equal: whether every byte is.
    """

    tensors: int
    masks: int
    factors: float
    equal: bool


def compared(one: Path, other: Path) -> dict[str, Difference]:
    """By method. Raises AssertionError where the files hold other tensors."""
    a, b = _read(one), _read(other)
    assert a.keys() == b.keys()
    found: dict[str, Difference] = {}
    for key, tensor in a.items():
        method = key.partition("/")[0]
        before = found.get(method, Difference(0, 0, 0.0, True))
        found[method] = _with(before, tensor, b[key])
    return found


def _read(file: Path) -> dict[str, Tensor]:
    with safe_open(file, framework="pt") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118


def _with(found: Difference, a: Tensor, b: Tensor) -> Difference:
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    equal = found.equal and bool((a == b).all())
    if not a.is_floating_point():
        return found._replace(
            tensors=found.tensors + 1, masks=found.masks + int((a != b).sum()), equal=equal
        )
    size = float(a.double().norm())
    moved = float((a.double() - b.double()).norm())
    relative = moved / size if size else moved
    return found._replace(
        tensors=found.tensors + 1, factors=max(found.factors, relative), equal=equal
    )
