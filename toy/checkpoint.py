"""A training in one safetensors file: saved, read and continued to the same bytes.

The tensors are the state and the history, field by field; a rule's memory is numbered in the
order of its pytree. Recipe, step and a checksum of all bytes are one JSON text of the header.
"""

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
from jaxtyping import Shaped
from safetensors.numpy import save

from toy.errors import Refused
from toy.files import write_whole
from toy.recipe import Recipe
from toy.train import History, State, Training, memory
from toy.transformer import Weights

FORMAT = "catch-tag-release training 1"
Tensors = dict[str, Shaped[np.ndarray, "..."]]


def _tensors(training: Training) -> Tensors:
    moments = jax.tree.leaves(training.state.moments)
    named = {f"weights.{name}": v for name, v in training.state.weights._asdict().items()}
    named |= {f"moments.{i:03}": value for i, value in enumerate(moments)}
    named |= {f"history.{name}": v for name, v in training.history._asdict().items()}
    named["diverged_at"] = training.state.diverged_at
    return {name: np.ascontiguousarray(value) for name, value in named.items()}


def _checksum(tensors: Tensors, about: str) -> str:
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def save_training(path: Path, training: Training) -> None:
    """Write the file whole or not at all; the same training gives the same bytes.

    Raises `OSError`: a full disk, a folder that is missing or cannot be written.
    """
    tensors = _tensors(training)
    about = json.dumps({"recipe": asdict(training.recipe), "done": training.done})
    header = {"format": FORMAT, "about": about, "sha256": _checksum(tensors, about)}
    # One entry: safetensors writes several in an order that changes from run to run.
    write_whole(path, save(tensors, {"training": json.dumps(header)}))


def load_training(path: Path) -> Training:
    """The training that was saved there, to the last bit.

    Raises `Refused`: no such file, not a file of this kind, or damaged.
    """
    if not path.is_file():
        raise Refused(f"{path}: no such file")
    tensors, header = _read(path)
    about = header.get("about")
    if header.get("format") != FORMAT or not isinstance(about, str):
        raise Refused(f"{path} is not a training of this version ({FORMAT}): train anew")
    if _checksum(tensors, about) != header.get("sha256"):
        raise Refused(f"{path} is damaged: its checksum does not match; train anew")
    try:
        return _training(tensors, json.loads(about), path)
    except Refused:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Refused(f"{path} is no training: its parts do not go together; train anew") from error


def _training(tensors: Tensors, told: dict[str, Any], path: Path) -> Training:
    recipe = _recipe(told["recipe"], path)
    weights = Weights(*(tensors[f"weights.{name}"] for name in Weights._fields))
    blank = memory(recipe, weights)
    leaves = [tensors[name] for name in sorted(tensors) if name.startswith("moments.")]
    moments = jax.tree.unflatten(jax.tree.structure(blank), leaves)
    history = History(*(tensors[f"history.{name}"] for name in History._fields))
    return Training(recipe, State(weights, moments, tensors["diverged_at"]), told["done"], history)


def _read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("training", "{}"))
            if not isinstance(header, dict):
                raise ValueError("its header is none")
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError, TypeError, RecursionError) as error:
        said = str(error).splitlines()[0]
        raise Refused(f"{path} is damaged or no safetensors file: {said}") from error


def _recipe(told: dict[str, Any], path: Path) -> Recipe:
    known = {field.name for field in fields(Recipe)}
    if strange := set(told) ^ known:
        raise Refused(
            f"{path} was written by another version: its recipe differs in {min(strange)}"
        )
    return Recipe(**told)
