"""base+lora: what is not low rank as a dense model, the low-rank terms as a PEFT adapter on it.

Written from PEFT's format, which is JSON and safetensors: PEFT need not be installed here. All
modules have r, the largest rank: A is [right; 0] and B is [left, 0], so that B A = left right to
rounding, and alpha / r = 1 also for who reads one alpha and no patterns, as llama.cpp does.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bridge.fold import linear, opened
from bridge.opened import Experts, shown
from bridge.operators import LinearOperator, LowRank, Stack, Sum, Weight
from bridge.packed import root
from bridge.sites import operators
from mech.blocks import decoder_blocks
from mech.errors import BadInput
from mech.refusals import first_line

BASE, ADAPTER = "base", "adapter"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class Parted(NamedTuple):
    """W = rest + left right, as the terms of an operator give it; rank 0 where none is low rank."""

    rest: Weight
    left: Float[Tensor, "d_out rank"]
    right: Float[Tensor, "rank d_in"]


def parted(term: LinearOperator) -> Parted:
    """The low-rank terms of an operator side by side, and all else as one matrix.

    Of a Stack, whose parts have ranks r_i, `left` is block diagonal and the rank is Σ r_i. A term
    that is off is zero.
    """
    d_out, d_in = term.shape
    if isinstance(term, LowRank) and term.active:
        return Parted(term.left.new_zeros(d_out, d_in), term.left, term.right)
    if isinstance(term, Sum | Stack) and term.active:
        parts = [parted(part) for part in term.each()]
        right = torch.cat([part.right for part in parts])
        if isinstance(term, Sum):
            # A zero matrix first or last would change no sum; nothing is rounded twice.
            rests = [part.rest for part in parts]
            return Parted(reduce(torch.add, rests), torch.cat([p.left for p in parts], 1), right)
        left = torch.block_diag(*(part.left for part in parts))
        return Parted(torch.cat([part.rest for part in parts]), left, right)
    dense = term.dense()
    return Parted(dense, dense.new_zeros(d_out, 0), dense.new_zeros(0, d_in))


def refuse_experts(model: nn.Module, names: Iterable[str]) -> None:
    """Raises BadInput, naming the first, where a name is of one expert of a stack.

    The family has no module there, and PEFT would leave the adapter out without an error.
    """
    there = dict(decoder_blocks(model).named_modules())
    for name in names:
        stack = there.get(name.removeprefix("layers.").rsplit(".", 2)[0])
        if stack is not None and isinstance(shown(stack) or stack, Experts):
            raise BadInput(
                f"{name}: PEFT has no adapter for one expert of a stack: save it dense or packed, "
                "or leave experts out with select"
            )


def split(model: nn.Module) -> tuple[dict[str, nn.Linear], dict[str, Parted]]:
    """By name: linears that hold what is not low rank, and the terms that are.

    Raises BadInput where no operator has a low-rank term, and where an expert of a stack has one.
    """
    bases, terms = split_some(model)
    if not terms:
        raise without_terms()
    refuse_experts(model, terms)
    return bases, terms


def split_some(model: nn.Module) -> tuple[dict[str, nn.Linear], dict[str, Parted]]:
    """`split`, of operators that may have no such term."""
    bases, terms = {}, {}
    for name, operator in operators(model).items():
        term, bias = opened(operator, name)
        both = parted(term)
        bases[name] = linear(both.rest, bias)
        if len(both.right):
            terms[name] = both
    return bases, terms


def without_terms() -> BadInput:
    """There is nothing to make an adapter of."""
    return BadInput("no operator has a low-rank term to make an adapter of: save it dense")


def write(model: nn.Module, terms: Mapping[str, Parted], folder: Path) -> None:
    """PEFT's two files: A = [right; 0], B = [left, 0], alpha = r, so that B A is added as it is."""
    folder.mkdir()
    rank = max(len(term.right) for term in terms.values())
    found = {name: padded(name, t, rank) for name, t in weights(model, terms).items()}
    save_file(found, folder / WEIGHTS, metadata={"format": "pt"})
    write_config(model, terms, rank, folder)


def weights(model: nn.Module, terms: Mapping[str, Parted]) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names, of each term's own rank."""
    found = {}
    for name, term in terms.items():
        path = f"base_model.model.{root(model)}.{name.removeprefix('layers.')}"
        found[f"{path}.lora_A.weight"] = term.right.contiguous()
        found[f"{path}.lora_B.weight"] = term.left.contiguous()
    return found


def padded(name: str, factor: Tensor, rank: int) -> Tensor:
    """The factor called `name` with `rank` rows (A) or columns (B), zeros behind its own."""
    more = rank - factor.shape[0 if _is_a(name) else 1]
    if not more:
        return factor
    return nn.functional.pad(factor, (0, 0, 0, more) if _is_a(name) else (0, more))


def padded_shape(name: str, shape: Sequence[int], rank: int) -> tuple[int, int]:
    """That of `padded`."""
    return (rank, shape[1]) if _is_a(name) else (shape[0], rank)


def _is_a(name: str) -> bool:
    return name.endswith(".lora_A.weight")


def write_config(model: nn.Module, names: Iterable[str], rank: int, folder: Path) -> None:
    """PEFT's configuration of an adapter of these linears, all of one rank."""
    paths = {f"{root(model)}.{name.removeprefix('layers.')}" for name in names}
    (folder / CONFIG).write_text(json.dumps(_config(model, paths, rank), indent=2) + "\n")


def read(folder: Path) -> dict[str, Tensor]:
    """The adapter's tensors. Raises BadInput where the file is damaged, OSError without one."""
    try:
        return load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise BadInput(
            f"{folder / WEIGHTS} is damaged ({first_line(error)}): save the model again"
        ) from error


def _config(model: nn.Module, paths: set[str], rank: int) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": {},
        "alpha_pattern": {},
        "target_modules": _targets(model, paths),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def _targets(model: nn.Module, paths: set[str]) -> list[str]:
    """Last names where these mean exactly the given modules (servers ask for that), else paths."""
    last = {path.rpartition(".")[2] for path in paths}
    meant = {path for path, _ in model.named_modules() if path.rpartition(".")[2] in last}
    return sorted(last if meant == paths else paths)
