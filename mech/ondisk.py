"""A model whose weights stay in its folder: one block in memory at a time.

The model is transformers' own, built without numbers; a block's weights are read just before
its forward pass and dropped just after, the embedding's rows as tokens ask for them, and
whatever lies outside the blocks (final norm, vocabulary head) while it runs. transformers' own
loader does renaming, merging (experts) and change of dtype, one block's tensors at a time, so
that every number is the one that `load` would have.

Own code and not accelerate's off-loading: that maps whole files (which count whole towards a
limit on data or address space), reads the whole embedding, writes what a family renames into a
second folder, and does not look at the numbers. Nothing is written here.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from mech.blocks import decoder_blocks
from mech.errors import BadInput
from mech.parts import Part, Reader
from mech.quiet import quiet
from mech.refusals import first_line, place
from mech.shards import Stored, stored

_PART = "_mech_part"

# glibc's mallopt: from this size on memory is mapped by itself, and goes back when it is freed.
_M_MMAP_THRESHOLD, _MAPPED = -3, 2**20


def model_on_disk(
    folder: Path, files: list[Path], dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """f(x; weights of `files`), equal bit for bit to the model in memory.

    Memory: the largest block, or the vocabulary head where logits are asked for, and
    activations. Weights outside a running module are on the meta device: whoever reads one is
    told so by PyTorch, and `resident(block)` holds it. Gradients of weights do not exist.

    Raises BadInput, one line each: on files that do not belong to the configuration (missing
    weights, other shapes), on quantised weights, and, when a block is read, on a damaged file
    and on weights that are not finite, with file and block.
    """
    give_back_what_is_freed()
    tensors = stored(files)
    try:
        with quiet():
            model, info = _skeleton(folder, tensors, dtype)
    except Exception as error:
        raise BadInput(f"the model in {folder} cannot be read: {first_line(error)}") from error
    if absent := sorted(info["missing_keys"]):
        raise BadInput(
            f"{folder} lacks {len(absent)} weights that its config.json asks for, first "
            f"{absent[0]} ({place(absent[0])}): the files do not belong together"
        )
    if (settings := folder / "generation_config.json").is_file():
        # Without weights to load transformers does not look for it.
        try:
            model.generation_config = GenerationConfig.from_pretrained(
                folder, local_files_only=True
            )
        except Exception as error:
            raise BadInput(f"{settings} cannot be read: {first_line(error)}") from error
    model.eval().requires_grad_(False)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and not buffer.is_meta:
                module._buffers[name] = buffer.to(device)
    _attach(model, Reader(model, tensors, dtype, device))
    _say_where(model, device)
    return model


@contextmanager
def resident(module: nn.Module) -> Iterator[None]:
    """The weights of a block or of a module outside the blocks are in memory inside.

    Nothing happens to a module that is in memory anyway.
    """
    part = getattr(module, _PART, None)
    if part is None:
        yield
        return
    part.enter()
    try:
        yield
    finally:
        part.leave()


def on_disk(model: nn.Module) -> bool:
    """Whether the weights of `model` stay in its folder."""
    return any(hasattr(module, _PART) for module in model.modules())


def where(model: nn.Module) -> torch.device:
    """Where tokens go: weights on the meta device cannot tell it, their model can."""
    found: Any = getattr(model, "device", None)
    return found or next(model.parameters()).device


def in_order(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the state by its name, in the order of the names, one part in memory.

    Keep none of them: it would stay in memory while the next is read. Raises BadInput as reading
    a block does.
    """
    names = sorted(model.state_dict())
    owned = groupby(names, key=lambda name: part_of(model, name.rpartition(".")[0]))
    for found, group in owned:
        with resident(model if found is None else found[0]):
            for name in group:
                path, _, last = name.rpartition(".")
                yield name, getattr(model.get_submodule(path), last).detach()


def part_of(model: nn.Module, path: str) -> tuple[nn.Module, Part] | None:
    """What a module's weights come and go with, and whose it is; None for a model in memory."""
    names = path.split(".")
    for count in range(len(names), -1, -1):
        owner = model.get_submodule(".".join(names[:count]))
        part = getattr(owner, _PART, None)
        if part is not None:
            return owner, part
    return None


def give_back_what_is_freed() -> None:
    """Freed weights leave the process, whatever small array was made meanwhile.

    glibc learns from large tensors that are freed to take the next from its heap, where a result
    that is kept splits the hole, and the heap grows by half a block a block. Other allocators
    (musl's, macOS') have no such function and no such habit.
    """
    libc = ctypes.CDLL(None)
    for name, args in (("mallopt", (_M_MMAP_THRESHOLD, _MAPPED)), ("malloc_trim", (0,))):
        function = getattr(libc, name, None)
        if function is not None:
            function(*args)


class _Shell:
    """A tensor without numbers, where transformers' loader expects a lazy one."""

    def __init__(self, tensor: Stored) -> None:
        self._tensor = tensor

    def __getitem__(self, whole: object) -> "_Shell":
        return self

    def to(self, device: object = None, dtype: torch.dtype | None = None) -> Tensor:
        found = self._tensor
        return torch.empty(found.shape, dtype=dtype or found.dtype, device="meta")


def _skeleton(folder: Path, tensors: dict[str, Stored], dtype: torch.dtype) -> Any:
    # Any: with `output_loading_info` a pair comes back, which the declared type does not know.
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError("its weights are quantised, and are not unpacked from disk")
    with torch.device("meta"):
        kind = type(AutoModelForCausalLM.from_config(config, trust_remote_code=False))
    shells: Any = {name: _Shell(tensor) for name, tensor in tensors.items()}
    # Buffers that no file holds (rotary frequencies) are computed, as in any loading.
    return kind.from_pretrained(
        None, config=config, state_dict=shells, dtype=dtype, output_loading_info=True
    )


def _attach(model: PreTrainedModel, reader: Reader) -> None:
    """Hooks that bring each part's weights, and take them away whether it ends well or not."""
    blocks = decoder_blocks(model)
    inside = {id(module) for block in blocks for module in block.modules()}
    embedding = model.get_input_embeddings()
    for module in [*blocks, *(m for m in model.modules() if id(m) not in inside)]:
        part = Part(reader, module, whole=module in blocks)
        if not part.slots:
            continue
        setattr(module, _PART, part)
        bring = part.rows if module is embedding else part.bring
        module.register_forward_pre_hook(bring)
        module.register_forward_hook(part.drop, always_call=True)


def _say_where(model: PreTrainedModel, device: torch.device) -> None:
    """`model.device` is where tokens go, which weights on the meta device cannot tell."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            kind = type(module)
            members = {"device": property(lambda _: device), "__module__": kind.__module__}
            module.__class__ = type(kind.__name__, (kind,), members)
