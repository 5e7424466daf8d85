"""One way to change a weight, wherever its numbers live; what it has become is read back.

A weight that is off-loaded is an empty tensor on the meta device between forward passes:
writing to it changes nothing, and raises nothing either.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn

from mech.disk import write_whole
from mech.errors import BadInput
from mech.ondisk import part_of, resident
from mech.parts import Part, Slot
from mech.shards import Stored, stored


def edit_weight(
    model: nn.Module, name: str, weight: Float[Tensor, "..."], *, folder: Path | str | None = None
) -> None:
    """θ[name] ← weight, in the dtype that it has in the model; `name` as in `named_parameters`.

    In memory the numbers are copied in place. Where accelerate keeps them in memory elsewhere,
    they are exchanged there. Where they lie in files (accelerate's, or `mech.ondisk`), the files
    stay as they are: the weight is written to a file of its own in `folder`, whole, and read from
    there from now on. In every case the model is then asked for the weight, as a forward pass
    would, and what it gives is compared bit by bit.

    Raises BadInput: no such weight; another shape; not finite in its dtype; tied to another (both
    would change); made of several tensors of the files (experts that are merged as they are
    read); in files and no `folder`; on the meta device with nothing that holds its numbers; and
    where what is read back is not what was written.
    """
    path, _, own = name.rpartition(".")
    parameter = _parameter(model, name)
    if parameter.shape != weight.shape:
        raise BadInput(f"{name} is {tuple(parameter.shape)}: not {tuple(weight.shape)}")
    new = weight.detach().to(parameter.dtype)
    if not bool(new.isfinite().all()):
        raise BadInput(f"{name}: what it should become is not finite in {parameter.dtype}")
    module = model.get_submodule(path)
    if not parameter.is_meta:
        with torch.no_grad():
            parameter.copy_(new)
        _compare(module, own, new, name)
        return
    found, hook = part_of(model, path), _hook(module)
    if found is not None:
        owner, part = found
        _redirect(part, Slot(module, own, parameter), new, name, folder)
        held = resident(owner)
    elif hook is not None:
        _exchange(hook, own, new, name, folder)
        held = _aligned(module)
    else:
        raise BadInput(f"{name} is on the meta device and nothing holds its numbers: load it")
    with held:
        _compare(module, own, new, name)


def _parameter(model: nn.Module, name: str) -> nn.Parameter:
    named = dict(model.named_parameters(remove_duplicate=False))
    if name not in named:
        raise BadInput(f"no weight is called {name!r}; they are like {next(iter(named), 'none')}")
    tied = [other for other, p in named.items() if p is named[name] and other != name]
    if tied:
        raise BadInput(f"{name} is tied to {tied[0]}: both would change; untie them first")
    return named[name]


def _compare(module: nn.Module, own: str, new: Tensor, name: str) -> None:
    found = getattr(module, own)
    if found.is_meta or not torch.equal(found.cpu(), new.cpu()):
        raise BadInput(f"{name}: what is read back is not what was written; load the model again")


def _stored_alone(new: Tensor, name: str, folder: Path | str | None) -> Stored:
    if folder is None:
        raise BadInput(f"{name} is read from its file: say with `folder` where its edit may lie")
    file = Path(folder).absolute() / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, save({name: new.cpu().contiguous()}))
    return stored([file])[name]


def _redirect(part: Part, slot: Slot, new: Tensor, name: str, folder: Path | str | None) -> None:
    reader = part.reader
    keys = reader.keys([slot])
    if len(reader.homes[id(slot.away)]) > 1:
        raise BadInput(f"{name} is tied to another weight: both would change")
    if len(keys) != 1 or reader.tensors[keys[0]].shape != tuple(slot.away.shape):
        raise BadInput(f"{name} is made of {len(keys)} tensors of its files: load it into memory")
    reader.tensors[keys[0]] = _stored_alone(new, name, folder)


def _hook(module: nn.Module) -> Any | None:
    """accelerate's hook that brings this module's weights before its forward pass."""
    hook = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", [hook]):
        if getattr(each, "offload", False) and getattr(each, "weights_map", None) is not None:
            return each
    return None


def _aligned(module: nn.Module) -> AbstractContextManager[None]:
    from accelerate.utils import align_module_device

    return align_module_device(module)


def _exchange(hook: Any, own: str, new: Tensor, name: str, folder: Path | str | None) -> None:
    if own in hook.tied_params_names:
        raise BadInput(f"{name} is tied to another weight: both would change; untie them first")
    # A map of the module's own weights, or one of the whole model that is asked with a prefix.
    place = getattr(hook.weights_map, "dataset", hook.weights_map)
    key = f"{getattr(hook.weights_map, 'prefix', '')}{own}"
    kept = getattr(place, "state_dict", place)
    if key in kept:
        kept[key] = new.to(kept[key].device)
        return
    file = _stored_alone(new, name, folder).file
    place.index[key] = {"safetensors_file": str(file), "weight_name": name}
