"""A language model with its tokenizer, checked while it is loaded.

Safetensors and JSON only: nothing that is read here can run code.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from mech.errors import BadInput
from mech.ondisk import model_on_disk
from mech.quiet import quiet
from mech.refusals import first_line, not_finite
from mech.sealed import check_sealed
from mech.source import resolve, weight_files

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Loaded(NamedTuple):
    """A model in evaluation mode without gradients, and what identifies it.

    `source` is the file or folder it was read from, or its hub id; `sha256` is of the weight
    files (of the GGUF file where it came from one).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: Path | str
    sha256: str


def load(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    advance: Callable[[str], None] | None = None,
    on_disk: bool = False,
) -> Loaded:
    """The model called `name`: `smollm2`, a local folder, a `.gguf` file or a hub id.

    `advance` is told of anything slow (a GGUF file's first conversion). With `on_disk` the
    weights stay in their folder and come one block at a time (`mech.ondisk`). Raises BadInput,
    in one line, on a model that is unknown, unreachable, incomplete, damaged or changed since we
    saved it, on weights that are not finite (with `on_disk`, when their block is read), and on a
    dtype or device that cannot be used.
    """
    if dtype not in DTYPES:
        names = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
        raise BadInput(f"{dtype} is no dtype to run a model in: choose {names}")
    place = _device(device)
    source = resolve(name, advance=advance)
    files = weight_files(source.folder)
    for file in files:
        _check_file(file)
    check_sealed(source.folder)
    tokenizer = _tokenizer(source.folder)
    if on_disk:
        model = model_on_disk(source.folder, files, dtype, place)
        return Loaded(model, tokenizer, name, source.origin, source.sha256)
    model = _model(source.folder, dtype)
    _check_weights(model, source.folder)
    # Through Module: the type of a model's own `to`, which is wrapped, cannot be followed.
    nn.Module.to(model.eval().requires_grad_(False), device=place)
    return Loaded(model, tokenizer, name, source.origin, source.sha256)


def _device(device: str | torch.device) -> torch.device:
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()  # "meta" makes tensors, and holds no number
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise BadInput(
            f"device {str(device)!r} cannot be used here: {first_line(error)}"
        ) from error
    return place


def _check_file(file: Path) -> None:
    # The header says how long the file is, so a truncated one is found without reading it.
    try:
        with safe_open(file, framework="pt", backend="pread"):
            pass
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"{file} is damaged ({first_line(error)}): delete it and fetch or convert it again"
        ) from error


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        raise BadInput(f"the tokenizer in {folder} cannot be read: {first_line(error)}") from error


def _model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    try:
        with quiet():
            model, info = _read(folder, dtype)
    except Exception as error:
        raise BadInput(f"the model in {folder} cannot be read: {first_line(error)}") from error
    # transformers fills what a file lacks with fresh random numbers, and only warns.
    if absent := sorted(info["missing_keys"]):
        raise BadInput(
            f"{folder} lacks {len(absent)} weights that its config.json asks for, first "
            f"{absent[0]}: the files do not belong together"
        )
    return model


def _read(folder: Path, dtype: torch.dtype) -> Any:
    # Any: with `output_loading_info` a pair comes back, which the declared type does not know.
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )


def _check_weights(model: PreTrainedModel, folder: Path) -> None:
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise BadInput(not_finite(name, weight.dtype, folder))
