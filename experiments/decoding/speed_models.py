"""What is timed: a model, text for it to read, and a recipe for its linears and its head."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from bridge.decode.inputs import calibrate
from bridge.decode.places import HEAD
from bridge.decode.plan import Setting
from bridge.decode.recipe import Recipe, fit, likeness
from bridge.sites import linears
from experiments import measure
from experiments.progress import Progress
from experiments.settings import BadOption, Reading
from experiments.text import Half, read_text
from mech import tokens
from mech.load import Loaded, load

RANDOM = "random-1.1b"
"""A model of TinyLlama-1.1B's configuration with seeded random weights: it says nothing, and takes
the time that such a model takes."""
TINYLLAMA = LlamaConfig(
    vocab_size=32000,
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=22,
    num_attention_heads=32,
    num_key_value_heads=4,
    max_position_embeddings=2048,
)


class Timed(NamedTuple):
    """A model and the ids that it decodes; `seen` are for calibration."""

    model: PreTrainedModel
    seen: Int[Tensor, "windows seq"]
    ids: Int[Tensor, "windows seq"]
    text: str


def timed_model(
    reading: Reading, dtype: torch.dtype, calibration: int, windows: int, seq: int
) -> Timed:
    """The model in `dtype`, and text of both halves; ids at random for random weights.

    Raises BadOption where windows are longer than what the model was made for.
    """
    if reading.model == RANDOM:
        _fits(seq, TINYLLAMA.max_position_embeddings)
        model = random_model(dtype)
        drawn = torch.Generator().manual_seed(0)
        some = torch.randint(3, TINYLLAMA.vocab_size, (windows + calibration, seq), generator=drawn)
        return Timed(model, some[:calibration], some[calibration:], "ids at random")
    loaded = load(reading.model, dtype=dtype)
    _fits(seq, measure.longest(loaded.model))
    seen, source = _windows(loaded, reading, "calibration", calibration, seq)
    ids, source = _windows(loaded, reading, "evaluation", windows, seq)
    return Timed(loaded.model, seen, ids, source)


def _fits(seq: int, most: int) -> None:
    if seq > most:
        raise BadOption(
            f"--prompt and --tokens: windows of {seq} tokens, and the model was made for {most}; "
            "give fewer"
        )


def _windows(
    loaded: Loaded, reading: Reading, half: Half, count: int, seq: int
) -> tuple[Tensor, str]:
    source = read_text(reading.text, half)
    encoded = tokens.encode(loaded.tokenizer, source.text[: 16 * seq * count], bos=reading.bos)
    return tokens.windows(encoded, seq, count), source.source


def random_model(dtype: torch.dtype) -> PreTrainedModel:
    """Seeded, in `dtype` from the start: two formats at once would not fit everywhere."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(0)
        return LlamaForCausalLM(TINYLLAMA).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def recipe_of(
    timed: Timed, setting: Setting, *, head: bool, random: bool, progress: Progress
) -> Recipe:
    """`setting` for all linears, and the head's.

    For `random` weights thresholds are calibrated and factors are small random numbers of the
    right rank: an SVD of noise would take an hour and say nothing.
    """
    names = [*linears(timed.model), *([HEAD] if head else [])]
    inputs = calibrate(timed.model, list(timed.seen.split(1)), keep=1024, head=head)
    plan = dict.fromkeys(names, setting)
    if not random:
        with progress.task("thresholds and factors", len(plan)) as advance:
            return fit(timed.model, plan, inputs, advance=advance)
    found = linears(timed.model)
    if head:
        found[HEAD] = timed.model.get_output_embeddings()  # type: ignore[assignment]
    thresholds, down, up, of = {}, {}, {}, {}
    drawn = torch.Generator().manual_seed(0)
    for name, linear in found.items():
        weight = linear.weight.detach()
        d_out, d_in = weight.shape
        thresholds[name] = inputs.thresholds(name, weight, setting)
        of[name] = likeness(weight)
        if rank := setting.rank(d_out, d_in):
            down[name] = (0.01 * torch.randn(d_in, rank, generator=drawn)).to(weight.dtype)
            up[name] = (0.01 * torch.randn(rank, d_out, generator=drawn)).to(weight.dtype)
    return Recipe(plan, thresholds, down, up, of)
