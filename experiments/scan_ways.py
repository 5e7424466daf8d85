"""Three ways through one model: our scan, eager attention with all its patterns, and no reading."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from experiments.provenance import peak_memory
from mech import standing
from mech.blocks import decoder_blocks
from mech.capture import capture_blocks

Way = Literal["scan", "eager", "sdpa"]
WAYS: tuple[Way, ...] = ("scan", "eager", "sdpa")
_TIMED = "scan_timed"


class Spent(NamedTuple):
    """CPU seconds: of the pass, and of it inside the attention function."""

    whole: float
    attention: float


class Peak(NamedTuple):
    """One pass in a process of its own: its time, and its peak memory above the loaded model."""

    spent: Spent
    bytes_: int


def go(way: Way, model: PreTrainedModel, tokens: Tensor) -> tuple[np.ndarray | None, Spent]:
    """[layer, batch, head, key] of received attention (none for `sdpa`), and the CPU time.

    The scan keeps what every key received and forgets the rest; eager attention returns all
    patterns, from which the same is summed. The sums are in the scan's attention function, and
    outside of eager's.
    """
    work = {"scan": _scan, "eager": _eager, "sdpa": _sdpa}[way]
    clock = [0.0]
    started = time.process_time()
    received = work(model, tokens, clock)
    return received, Spent(time.process_time() - started, clock[0])


def _scan(model: PreTrainedModel, tokens: Tensor, clock: list[float]) -> np.ndarray:
    AttentionInterface.register(standing.NAME, _timed(standing.attention, clock))
    try:
        return np.stack(capture_blocks(model, tokens, lambda block: block.received))
    finally:
        AttentionInterface.register(standing.NAME, standing.attention)


@torch.no_grad()
def _eager(model: PreTrainedModel, tokens: Tensor, clock: list[float]) -> np.ndarray:
    with _attention(model, _own_eager(model), eager_mask, clock):
        found = model.base_model(tokens, use_cache=False, output_attentions=True)
    return np.stack([pattern.sum(dim=2).numpy() for pattern in found.attentions])


@torch.no_grad()
def _sdpa(model: PreTrainedModel, tokens: Tensor, clock: list[float]) -> None:
    with _attention(model, sdpa_attention_forward, sdpa_mask, clock):
        model.base_model(tokens, use_cache=False)


def _own_eager(model: PreTrainedModel) -> Callable:
    """The function that the model's file calls eager attention."""
    return sys.modules[type(model).__module__].eager_attention_forward


def _timed(function: Callable, clock: list[float]) -> Callable:
    def attention(*args: object, **kwargs: object) -> object:
        started = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            clock[0] += time.process_time() - started

    return attention


@contextmanager
def _attention(
    model: PreTrainedModel, function: Callable, mask: Callable, clock: list[float]
) -> Iterator[None]:
    AttentionInterface.register(_TIMED, _timed(function, clock))
    AttentionMaskInterface.register(_TIMED, mask)
    config = model.config
    own = config._attn_implementation
    config._attn_implementation = _TIMED
    try:
        yield
    finally:
        config._attn_implementation = own


def shortened(model: PreTrainedModel, blocks: int) -> PreTrainedModel:
    """The same model, left with its first blocks; changed in place."""
    layers = decoder_blocks(model)
    for name, module in model.named_modules():
        if module is layers:
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], nn.ModuleList(layers[:blocks]))
    model.config.num_hidden_layers = min(blocks, len(layers))
    return model


def apart(way: Way, name: str, seq: int, seed: int, blocks: int | None = None) -> Peak:
    """`way` in a fresh process, of the first `blocks` blocks or all: time, peak memory."""
    about = json.dumps([way, name, seq, seed, blocks])
    code = f"from experiments.scan_ways import child; child({about!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    whole, attention, peak = ended.stdout.split()[-3:]
    return Peak(Spent(float(whole), float(attention)), int(peak))


def child(about: str) -> None:
    """What `apart` starts: a short pass to have everything loaded, then the one that counts."""
    from mech.load import load

    way, name, seq, seed, blocks = json.loads(about)
    torch.set_num_threads(1)
    model = load(name).model
    if blocks is not None:
        model = shortened(model, blocks)
    go(way, model, random_tokens(model, 64, seed))
    tokens = random_tokens(model, seq, seed)
    before = _forget_peak()
    _, spent = go(way, model, tokens)
    sys.stdout.write(f"{spent.whole} {spent.attention} {peak_memory() - before}\n")


def random_tokens(model: PreTrainedModel, seq: int, seed: int) -> Tensor:
    """One sequence; what it says changes neither time nor memory."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.config.vocab_size, (1, seq), generator=generator)


def _forget_peak() -> int:
    """Resident bytes now; where the system allows it, the peak so far is forgotten."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()
