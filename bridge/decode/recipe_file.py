"""Recipes on disk: JSON and safetensors, with the SHA-256 of both, and no code."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bridge import manifest
from bridge.checkpoint import whole_folder
from bridge.decode.plan import Factors, Rule, Setting
from bridge.decode.recipe import Recipe
from mech.errors import BadInput

RECIPE, TENSORS = "recipe.json", "tensors.safetensors"
FORMAT = 1
PARTS = ("thresholds", "down", "up", "likeness", "bias")
AGAIN = "write the recipe again (ctr sparsify)"


def save(recipe: Recipe, folder: Path | str) -> Path:
    """As `Recipe.save`."""
    folder = Path(folder).absolute()
    if folder.exists():
        raise BadInput(f"{folder} exists: choose another folder or remove it")
    plan = {name: asdict(setting) for name, setting in recipe.plan.items()}
    says = {"format": FORMAT, "plan": plan, "provenance": dict(recipe.provenance)}
    try:
        text = json.dumps(says, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"provenance: plain JSON values only ({error})") from error
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part in PARTS
        for name, tensor in getattr(recipe, part).items()
    }
    with whole_folder(folder) as partial:
        (partial / RECIPE).write_text(text + "\n", encoding="utf-8")
        save_file(tensors, partial / TENSORS)
        manifest.write(partial, form="recipe")
    return folder


def load(folder: Path | str) -> Recipe:
    """As `Recipe.load`."""
    folder = Path(folder)
    if manifest.verify(folder, AGAIN).get("form") != "recipe":
        raise BadInput(f"{folder} holds a model, not a recipe: {AGAIN}")
    try:
        says = json.loads((folder / RECIPE).read_bytes())
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise BadInput(f"{folder} cannot be read: {AGAIN}") from error
    if not isinstance(says, dict) or says.get("format") != FORMAT:
        raise BadInput(f"{folder / RECIPE} was written by another version: {AGAIN}")
    try:
        plan = {name: _setting(fields) for name, fields in says["plan"].items()}
        parts: dict[str, Any] = {part: {} for part in PARTS}
        for key, tensor in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = tensor
        _check(plan, parts)
        return Recipe(plan, **parts, provenance=says["provenance"])
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{folder / RECIPE} is damaged ({error!r}): {AGAIN}") from error


def _setting(fields: Mapping[str, Any]) -> Setting:
    rule, factors = fields["rule"], fields["factors"]
    if rule not in get_args(Rule) or factors not in get_args(Factors):
        raise BadInput(
            f"a recipe with rule {rule!r} and factors {factors!r}: this version knows "
            f"{', '.join(get_args(Rule))}; {', '.join(get_args(Factors))}"
        )
    return Setting(**fields)


def _check(plan: Mapping[str, Setting], parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Every linear has all that it needs, in shapes that go together, and every number is one."""
    for name in plan:
        d_out, d_in = (int(size) for size in parts["likeness"][name][:2])
        wanted: dict[str, tuple[int, ...]] = {"thresholds": (d_in,)}
        down = parts["down"].get(name)
        if down is not None:
            wanted |= {"down": (d_in, down.shape[-1]), "up": (down.shape[-1], d_out)}
        if name in parts["bias"]:
            wanted["bias"] = (d_out,)
        for part, shape in wanted.items():
            tensor = parts[part][name]
            # A threshold may be infinite: such a channel is never read.
            bad = tensor.isnan() if part == "thresholds" else ~tensor.isfinite()
            if tensor.shape != shape or bool(bad.any()):
                raise BadInput(f"{name}: its {part} are not {shape} numbers: {AGAIN}")
        if parts["thresholds"][name].dtype != torch.float32:
            raise BadInput(f"{name}: thresholds have to be float32: {AGAIN}")
