"""An operator as a JSON spec and named tensors, and back, bit for bit.

The spec says the kind, its parts and the dtype and shape of every tensor; the tensors hold the
numbers. Both forms of storage, the packed checkpoint and the shards of a run, are made of it.
A kind is registered under a name by the file that defines its class; no other is ever built.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bridge.operators import Affine, Dense, LinearOperator, LowRank, Operator, Sparse, Stack, Sum
from mech.errors import BadInput

Spec = dict[str, Any]
Tensors = Mapping[str, Tensor]


class Kind(NamedTuple):
    """How operators of one class are told and built.

    `attributes(op)`: plain JSON values beside the tensors. `stored(op)`: its own tensors, not
    those of its parts. `parts(op)`: the operators it is made of. `built(attributes, tensors,
    parts)`: the operator again; it raises BadInput where they contradict each other.
    """

    operator: type[Operator]
    stored: Callable[[Any], dict[str, Tensor]]
    built: Callable[[Spec, Tensors, Sequence[Any]], Operator]
    attributes: Callable[[Any], Spec] = lambda _: {}
    parts: Callable[[Any], Sequence[Operator]] = lambda _: ()


_KINDS: dict[str, Kind] = {}
_HOMES = {"quantized": "bridge.quantized", "sliced": "bridge.sliced"}
"""Kinds whose file is imported only when a stored one is met."""
_MOST = 2**40
"""Entries of a stored tensor: what is above is no tensor but damage."""
_DTYPES = {
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
}  # fmt: skip
_OURS = {"kind", "tensors", "parts", "active", "note"}


def register(name: str, kind: Kind) -> None:
    """From now on operators of exactly this class are stored under `name`."""
    _KINDS[name] = kind


def describe(operator: Operator) -> Spec:
    """Plain JSON: kind, attributes, {name: [dtype, shape]} of its own tensors, and its parts.

    A term that is off is stored off, with its numbers; its note is kept. Raises BadInput for a
    class that no kind is registered for.
    """
    name, kind = _kind_of(operator)
    own = {key: [_name(t.dtype), list(t.shape)] for key, t in kind.stored(operator).items()}
    spec = {"kind": name, **kind.attributes(operator), "tensors": own}
    if parts := [describe(part) for part in kind.parts(operator)]:
        spec["parts"] = parts
    if not getattr(operator, "active", True):
        spec["active"] = False
    if note := getattr(operator, "note", ""):
        spec["note"] = note
    return spec


def tensors(operator: Operator) -> dict[str, Tensor]:
    """All that the spec speaks of, contiguous; those of part i are called `i.<name>`."""
    _, kind = _kind_of(operator)
    found = {key: t.detach().contiguous() for key, t in kind.stored(operator).items()}
    for index, part in enumerate(kind.parts(operator)):
        found |= {f"{index}.{key}": t for key, t in tensors(part).items()}
    return found


def layout(spec: Spec) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Dtype and shape of every tensor that `spec` asks for.

    Raises BadInput where the spec is none, or its kind is not known here.
    """
    try:
        _known(spec["kind"])
        found = {key: _slot(*slot) for key, slot in spec["tensors"].items()}
        if not all(key.isidentifier() for key in found):
            raise KeyError("a tensor has no name")
        for index, part in enumerate(spec.get("parts", [])):
            found |= {f"{index}.{key}": slot for key, slot in layout(part).items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput("the description of an operator is damaged: save the model again") from error
    return found


def rebuild(spec: Spec, tensors: Tensors) -> Operator:
    """The operator that `spec` and `tensors` tell of: `describe` and `tensors` undone, exactly.

    Raises BadInput, in one line, for an unknown kind, a tensor that is missing, too many, or of
    another dtype or shape than the spec says, and for numbers that contradict each other.
    """
    wanted = layout(spec)
    if missing := sorted(set(wanted) ^ set(tensors)):
        which = "is missing" if missing[0] in wanted else "is not part of it"
        raise BadInput(f"a stored {spec['kind']} operator: its tensor {missing[0]} {which}")
    for key, (dtype, shape) in wanted.items():
        found = tensors[key]
        if (found.dtype, tuple(found.shape)) != (dtype, shape):
            raise BadInput(
                f"a stored {spec['kind']} operator: its tensor {key} is {_name(found.dtype)} "
                f"{tuple(found.shape)}, its description says {_name(dtype)} {shape}"
            )
    return _built(spec, tensors)


def _built(spec: Spec, tensors: Tensors) -> Operator:
    kind = _known(spec["kind"])
    parts = []
    for index, part in enumerate(spec.get("parts", [])):
        inside = f"{index}."
        own = {k.removeprefix(inside): t for k, t in tensors.items() if k.startswith(inside)}
        parts.append(_built(part, own))
    attributes = {key: value for key, value in spec.items() if key not in _OURS}
    try:
        operator = kind.built(attributes, {key: tensors[key] for key in spec["tensors"]}, parts)
    except BadInput:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, IndexError) as error:
        raise BadInput(
            f"a stored {spec['kind']} operator: its description and its tensors do not belong "
            "together: save the model again"
        ) from error
    if isinstance(operator, LinearOperator):
        operator.active = bool(spec.get("active", True))
        if note := spec.get("note"):
            operator.note = str(note)  # type: ignore[attr-defined]
    return operator


def _kind_of(operator: Operator) -> tuple[str, Kind]:
    for name, kind in _KINDS.items():
        if kind.operator is type(operator):
            return name, kind
    raise BadInput(f"a {type(operator).__name__} cannot be stored: no kind is registered for it")


def _known(name: str) -> Kind:
    if name not in _KINDS and name in _HOMES:
        import_module(_HOMES[name])
    if name not in _KINDS:
        raise BadInput(
            f"a stored operator is of kind {name!r}, which this version does not know "
            f"(it knows {', '.join(sorted(_KINDS))})"
        )
    return _KINDS[name]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _slot(dtype: str, shape: Sequence[int]) -> tuple[torch.dtype, tuple[int, ...]]:
    if dtype not in _DTYPES:
        raise TypeError(dtype)
    found: torch.dtype = getattr(torch, dtype)
    sizes = tuple(shape)
    # Each by itself too: a nought beside it hides a size that no tensor has from the product.
    if any(type(size) is not int or not 0 <= size <= _MOST for size in sizes):
        raise ValueError(shape)
    if math.prod(sizes) > _MOST:
        raise ValueError(shape)
    return found, sizes


def _packed(sparse: Sparse) -> dict[str, Tensor]:
    """The entries whose bits are not all zero, row by row, and a bit for every place, low first.

    A negative zero, which a cast to a narrow format can leave, is an entry: what is read back is
    what was stored, in every bit.
    """
    weight = sparse.weight.detach().contiguous()
    there = weight.view(-1).view(_integer(weight.dtype)) != 0
    bits = np.packbits(there.cpu().numpy(), bitorder="little")
    mask = torch.from_numpy(bits).to(weight.device)
    return {"values": weight.view(-1)[there], "mask": mask}


def _unpacked(attributes: Spec, tensors: Tensors, _: Sequence[Operator]) -> Operator:
    d_out, d_in = attributes["shape"]
    values, mask = tensors["values"], tensors["mask"]
    if mask.numel() != -(-d_out * d_in // 8):
        raise BadInput(f"a stored sparse operator: {mask.numel()} bytes place {d_out} x {d_in}")
    bits = np.unpackbits(mask.cpu().numpy(), count=d_out * d_in, bitorder="little")
    there = torch.from_numpy(bits.astype(bool)).to(values.device)
    if int(there.sum()) != values.numel():
        raise BadInput(
            f"a stored sparse operator: {values.numel()} values and {int(there.sum())} places"
        )
    weight = values.new_zeros(d_out * d_in)
    weight[there] = values
    sparse = Sparse(weight.view(d_out, d_in))
    sparse.weight = weight.view(d_out, d_in)  # with the negative zeros that were stored
    return sparse


def _integer(dtype: torch.dtype) -> torch.dtype:
    return {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]


register(
    "dense", Kind(Dense, lambda op: {"weight": op.weight}, lambda _, t, __: Dense(t["weight"]))
)
register(
    "sparse",
    Kind(Sparse, _packed, _unpacked, attributes=lambda op: {"shape": list(op.shape)}),
)
register(
    "low_rank",
    Kind(
        LowRank,
        lambda op: {"left": op.left, "right": op.right},
        lambda _, t, __: LowRank(t["left"], t["right"]),
    ),
)
register(
    "sum", Kind(Sum, lambda _: {}, lambda _, __, parts: Sum(parts), parts=lambda op: op.each())
)
register(
    "stack",
    Kind(Stack, lambda _: {}, lambda _, __, parts: Stack(parts), parts=lambda op: op.each()),
)
register(
    "affine",
    Kind(
        Affine,
        lambda op: {"bias": op.bias},
        lambda _, t, parts: Affine(parts[0], t["bias"]),
        parts=lambda op: [op.term],
    ),
)
