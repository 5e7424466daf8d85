"""The packed form: operators in a checkpoint as they are stored, not as the matrix they stand for.

A module's first tensor is stored flat under `<module>.weight`. Whoever builds the family's own
linear there, which is what transformers does without this package, finds a vector where a
matrix belongs, and stops: a packed checkpoint is never filled up with random weights.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bridge.manifest import tensors_hash
from bridge.opened import Experts
from bridge.operators import Operator
from bridge.serial import Spec, describe, layout, rebuild, tensors
from bridge.sites import operators, place, show
from mech.blocks import decoder_blocks
from mech.errors import BadInput


def root(model: nn.Module) -> str:
    """Where the model keeps its blocks: "model.layers" for most families."""
    blocks = decoder_blocks(model)
    return next(path for path, module in model.named_modules() if module is blocks)


def specs(model: nn.Module) -> dict[str, Spec]:
    """The description of every operator. Raises BadInput where there is none."""
    found = {name: describe(operator) for name, operator in operators(model).items()}
    if not found:
        raise BadInput("the model holds no operators: compress it before it is saved packed")
    return found


def packed(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The tensors of every operator by the operator's name, under the names they are stored as."""
    return {name: _flat(describe(op), tensors(op)) for name, op in operators(model).items()}


def state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state, with operators' tensors under the names they are stored as."""
    blocks = root(model)
    stored = {f"{blocks}.{name.removeprefix('layers.')}": t for name, t in packed(model).items()}
    inside = tuple(f"{path}." for path in stored)
    found = {k: t for k, t in model.state_dict().items() if not k.startswith(inside)}
    for path, parts in stored.items():
        found |= {f"{path}.{key}": tensor for key, tensor in parts.items()}
    for path in _opened(model):
        found |= {f"{blocks}.{path}.{name}": torch.zeros(1) for name in _STACKS}
    return found


def digest(stored: Mapping[str, Mapping[str, Tensor]]) -> str:
    """SHA-256 over all stored tensors of all operators."""
    return tensors_hash(
        {f"{name}.{key}": tensor for name, parts in stored.items() for key, tensor in parts.items()}
    )


_STACKS = ("gate_up_proj", "down_proj")
"""What a family calls its stacks. One number under each of these names stops whoever builds the
stack itself, as the vector under `weight` stops whoever builds a linear."""


class Slots(nn.Module):
    """Where a loader puts the stored tensors of one operator."""

    def __init__(self, wanted: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]):
        super().__init__()
        for name, (dtype, shape) in wanted.items():
            *inner, last = name.split(".")
            at: nn.Module = self
            for part in inner:
                if part not in at._modules:
                    at.add_module(part, nn.Module())
                at = at.get_submodule(part)
            at.register_buffer(last, torch.empty(shape, dtype=dtype, device="meta"))


def prepare(model: nn.Module, linears: Mapping[str, Spec]) -> None:
    """Put empty slots where `linears` has operators. Raises BadInput where no linear stands."""
    slots = {name: Slots(_slots(spec)) for name, spec in linears.items()}
    show(model, linears)
    for experts in _opened(model).values():
        for name in _STACKS:
            experts.register_buffer(name, torch.empty(1, device="meta"))
    there = dict(model.named_modules())
    blocks = root(model)
    for name in slots:
        module = there.get(f"{blocks}.{name.removeprefix('layers.')}")
        if not isinstance(module, nn.Linear):
            raise BadInput(f"{name}: config.json places an operator where the model has no linear")
    place(model, slots)


def restore(model: nn.Module, linears: Mapping[str, Spec], expected: str) -> None:
    """Build the operators of what was loaded into the slots, and put them in their places.

    Raises BadInput where the tensors are not those whose digest is `expected`.
    """
    blocks = decoder_blocks(model)
    found: dict[str, dict[str, Tensor]] = {}
    for name in linears:
        slots = blocks.get_submodule(name.removeprefix("layers."))
        found[name] = dict(slots.named_buffers())
        if any(tensor.is_meta for tensor in found[name].values()):
            raise BadInput(
                f"{name}: its tensors were not loaded; load on one device, not off-loaded"
            )
    if digest(found) != expected:
        raise BadInput("the packed weights are not those that were saved: save the model again")
    for experts in _opened(model).values():
        for name in _STACKS:
            delattr(experts, name)
    place(model, {name: rebuild(spec, _deep(spec, found[name])) for name, spec in linears.items()})


def achieved(model: nn.Module, names: Any) -> dict[str, dict[str, int]]:
    """Of each module: parameters of the matrix, numbers that are stored for it, and their bits."""
    blocks = decoder_blocks(model)
    found = {}
    for name in names:
        module: Any = blocks.get_submodule(name.removeprefix("layers."))
        if isinstance(module, Operator):
            parameters = module.shape[0] * module.shape[1]
            kept, bits = module.parameters_kept(), module.bits()
        else:
            parameters = module.weight.numel()
            kept, bits = int(module.weight.count_nonzero()), 8 * module.weight.nbytes
        found[name] = {"parameters": parameters, "kept": kept, "bits": bits}
    return found


def _opened(model: nn.Module) -> dict[str, Experts]:
    """Stacks of experts that are linears here, by path in the list of blocks."""
    found = decoder_blocks(model).named_modules()
    return {path: module for path, module in found if isinstance(module, Experts)}


def _main(wanted: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> str:
    """The tensor that is stored as `weight`: the first of floats, or the first of all."""
    floats = [key for key, (dtype, _) in wanted.items() if dtype.is_floating_point]
    if not wanted:
        raise BadInput("an operator without tensors cannot be stored")
    return (floats or list(wanted))[0]


def _slots(spec: Spec) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    wanted = layout(spec)
    main = _main(wanted)
    dtype, shape = wanted.pop(main)
    return {"weight": (dtype, (torch.Size(shape).numel(),)), **_apart(wanted)}


def _flat(spec: Spec, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    main = _main(layout(spec))
    rest = {key: tensor for key, tensor in own.items() if key != main}
    return {"weight": own[main].reshape(-1), **_apart(rest)}


def _deep(spec: Spec, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    wanted = layout(spec)
    main = _main(wanted)
    names = _apart({key: key for key in wanted if key != main})
    rest = {key: stored[name] for name, key in names.items()}
    return {main: stored["weight"].reshape(wanted[main][1]), **rest}


def _apart(named: Mapping[str, Any]) -> dict[str, Any]:
    """`weight` is taken: a tensor of that name that is not the first is called `own_weight`."""
    return {("own_weight" if key == "weight" else key): value for key, value in named.items()}
