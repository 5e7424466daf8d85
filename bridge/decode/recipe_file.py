"""Recipes on disk: JSON and safetensors, with the SHA-256 of both, and no code."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bridge import manifest
from bridge.checkpoint import whole_folder
from bridge.decode.plan import Setting
from bridge.decode.plan_file import setting
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
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder of a recipe: write one (ctr sparsify)")
    if not (folder / manifest.MANIFEST).exists() and (folder / "recipe").is_dir():
        raise BadInput(f"{folder} holds no recipe; {folder / 'recipe'} may (ctr search)")
    if manifest.verify(folder, AGAIN).get("form") != "recipe":
        raise BadInput(f"{folder} holds a model, not a recipe: {AGAIN}")
    try:
        says = json.loads((folder / RECIPE).read_bytes())
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise BadInput(f"{folder} cannot be read: {AGAIN}") from error
    if not isinstance(says, dict) or says.get("format") != FORMAT:
        raise BadInput(f"{folder / RECIPE} was written by another version: {AGAIN}")
    try:
        plan = {name: setting(name, fields) for name, fields in says["plan"].items()}
        parts: dict[str, Any] = {part: {} for part in PARTS}
        for key, tensor in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = tensor
        _check(plan, parts)
        return Recipe(plan, **parts, provenance=dict(says["provenance"]))
    except BadInput as error:
        raise BadInput(f"{folder}: {error}: {AGAIN}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{folder} is damaged ({error!r}): {AGAIN}") from error


def _check(plan: Mapping[str, Setting], parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Every linear has all that it needs, in shapes that go together, and every number is one."""
    if not plan:
        raise BadInput("it plans no linear")
    for name in {name for part in parts.values() for name in part} - plan.keys():
        raise BadInput(f"{name} has tensors and no plan")
    for name, its in plan.items():
        of = parts["likeness"][name]
        if (
            of.dim() != 1
            or len(of) < 3
            or not bool(of.isfinite().all())
            or bool((of[:2] < 1).any())
        ):
            raise BadInput(f"{name}: it does not say which weight it is of")
        d_out, d_in = int(of[0]), int(of[1])
        wanted: dict[str, tuple[int, ...]] = {"thresholds": (d_in,)}
        rank = its.rank(d_out, d_in)
        if rank or name in parts["down"] or name in parts["up"]:
            wanted |= {"down": (d_in, rank), "up": (rank, d_out)}
        if name in parts["bias"]:
            wanted["bias"] = (d_out,)
        for part, shape in wanted.items():
            _numbers(f"{name}: its {part}", parts[part][name], shape, part == "thresholds")


def _numbers(what: str, tensor: Tensor, shape: tuple[int, ...], threshold: bool) -> None:
    """A threshold is float32, and may be infinite: such a channel is never read, or always."""
    if threshold and tensor.dtype != torch.float32:
        raise BadInput(f"{what} have to be float32")
    bad = tensor.isnan() if threshold else ~tensor.isfinite()
    if tensor.shape != shape or not tensor.is_floating_point() or bool(bad.any()):
        raise BadInput(f"{what} are not {shape} numbers")
