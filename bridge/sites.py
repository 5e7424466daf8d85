"""Where operators stand: the linears under a model's decoder blocks, by name.

A name is `layers.<block>.<path inside the block>`, as in "layers.3.self_attn.q_proj", whatever
the family calls its list of blocks. Embeddings, the head and the norms are no linears of a
block: they have no name here and are never touched.
"""

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from itertools import chain

from torch import nn

from bridge.opened import shown
from bridge.operators import Affine, LinearOperator, Operator
from mech.blocks import decoder_blocks
from mech.errors import BadInput
from mech.ondisk import on_disk


def linears(model: nn.Module, select: str = "*") -> dict[str, nn.Linear]:
    """The linears whose name matches the fnmatch glob `select`, in order of depth.

    GPT-2's transposed Conv1D and each expert of a stack are shown as linears (`bridge.opened`),
    which do not stand in the model until `show` puts them there. What weighs experts against
    each other is no linear here. Raises BadInput where none matches, where experts are kept in
    a way that is not known, and where a weight is not a plain matrix of floats (quantised,
    off-loaded). One that stays in its folder (`mech.ondisk`) has numbers while it is resident.
    """
    found = _linears(model)
    away = on_disk(model)
    chosen = {}
    for name in matching(found, select, "linear"):
        linear = found[name]
        if not isinstance(linear, nn.Linear):
            raise BadInput(
                f"{name} is a {type(linear).__name__}, a stack of experts of a kind that is not "
                "known: leave it out with `select`"
            )
        if (linear.weight.is_meta and not away) or not linear.weight.is_floating_point():
            raise BadInput(
                f"{name}: its weight is {linear.weight.dtype} on {linear.weight.device}; "
                "load the model unquantised and in memory"
            )
        chosen[name] = linear
    return chosen


def show(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Put linears where the family keeps these in another form; what stood there, by name."""
    names = set(names)
    stood, views = {}, {}
    for name, module in _modules(model):
        view = shown(module)
        if view is not None and names & _inside(name, view).keys():
            stood[name], views[name] = module, view
    place(model, views)
    return stood


def left_dense(model: nn.Module, select: str = "*") -> tuple[str, ...]:
    """Modules of matching names that still hold matrices: routers, linears that were not taken."""
    return tuple(
        name
        for name, module in _modules(model)
        if fnmatchcase(name, select)
        and any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    )


def operators(model: nn.Module, select: str = "*") -> dict[str, Operator]:
    """The operators that stand at matching names, those inside other operators left out."""
    found = {name: module for name, module in _modules(model) if isinstance(module, Operator)}
    return {
        name: operator
        for name, operator in found.items()
        if fnmatchcase(name, select) and not any(name.startswith(f"{o}.") for o in found)
    }


def matching(names: Iterable[str], select: str, what: str) -> list[str]:
    """The names that match. Raises BadInput, with the nearest names, where none does."""
    names = list(names)
    chosen = [name for name in names if fnmatchcase(name, select)]
    if chosen:
        return chosen
    if not names:
        raise BadInput(f"there is no {what} under the model's decoder blocks")
    near = difflib.get_close_matches(select, names, n=3, cutoff=0.3) or names[:3]
    raise BadInput(f"no {what} matches {select!r}; names are like {', '.join(near)}")


def module(model: nn.Module, name: str) -> nn.Module:
    """What stands at a name. Raises BadInput where nothing does."""
    names = {n for n, _ in _modules(model)}
    if name not in names:
        matching(sorted(names), name, "module")
    return decoder_blocks(model).get_submodule(name.removeprefix("layers."))


def standing(
    replacement: Operator | nn.Linear, before: Operator | nn.Linear
) -> Operator | nn.Linear:
    """`replacement` in the format and place of `before`, whose bias a LinearOperator is given."""
    like = next(chain(before.parameters(), before.buffers()))
    bias = before.bias if isinstance(before, nn.Linear | Affine) else None
    if isinstance(replacement, LinearOperator) and bias is not None:
        replacement = Affine(replacement, bias)
    return replacement.to(like.device, like.dtype).train(before.training)


def place(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Put modules at names, in place."""
    blocks = decoder_blocks(model)
    for name, replacement in modules.items():
        blocks.set_submodule(name.removeprefix("layers."), replacement)


def block_of(name: str) -> int:
    """The block of a name: 3 of "layers.3.self_attn.q_proj"."""
    return int(name.split(".")[1])


def _linears(model: nn.Module) -> dict[str, nn.Module]:
    """Linears by name, those that `show` would show too; stacks of experts that it cannot."""
    found: dict[str, nn.Module] = {}
    modules = dict(_modules(model))
    mixtures = {name.removesuffix(".experts") for name in modules if name.endswith(".experts")}
    for name, module in modules.items():
        router = isinstance(module, nn.Linear) and name.rpartition(".")[0] in mixtures
        view = shown(module)
        if view is not None:
            found |= _inside(name, view)
        elif (isinstance(module, nn.Linear) and not router) or _unknown_experts(module):
            found[name] = module
    return found


def _inside(name: str, view: nn.Module) -> dict[str, nn.Linear]:
    return {
        f"{name}.{path}" if path else name: linear
        for path, linear in view.named_modules()
        if isinstance(linear, nn.Linear)
    }


def _unknown_experts(module: nn.Module) -> bool:
    stacks = any(parameter.ndim > 2 for parameter in module.parameters(recurse=False))
    return stacks and type(module).__name__.endswith("Experts")


def _modules(model: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    for path, found in decoder_blocks(model).named_modules():
        if path:
            yield f"layers.{path}", found
