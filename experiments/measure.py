"""One model, measured: how well it predicts a text, and where its sinks are."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from bridge import evaluate
from bridge.ranks import TorchRanks, share
from ctr_kernels.hard_threshold import hard_threshold
from ctr_kernels.sink_mass import sink_mass
from experiments.intervals import Interval, interval
from experiments.progress import Advance, Progress
from experiments.provenance import Inputs
from experiments.settings import Reading, Sizes, within
from experiments.text import Half, Text, read_text
from experiments.threads import settle
from mech import tokens
from mech.capture import capture_blocks
from mech.load import Loaded, load
from mech.memory import by_halves
from mech.probes import reach, sinks
from mech.probes.sinks import Agreement
from mech.trace import BlockTrace

EPSILON = 0.1
AT_ONCE = 4  # sequences in one pass


class Material(NamedTuple):
    """What is read: windows that start with BOS where there is one, and how that was decided."""

    calibration: Int[Tensor, "windows seq"]
    evaluation: Int[Tensor, "windows seq"]
    sequences: Int[Tensor, "sequences seq"]
    bos_id: int | None
    inputs: Inputs


class Measured(NamedTuple):
    """nll: nats a token, one mean a window. scores: alpha, as `sink_scores` reads it."""

    nll: Float[np.ndarray, " windows"]
    scores: Float[np.ndarray, "layer sequences head key"]


class Counts(NamedTuple):
    """Sinks a sequence: of the first token, of guarded later tokens, and all as papers count."""

    first: Interval
    later: Interval
    raw: Interval


class Effect(NamedTuple):
    """What an intervention changed, paired with the dense model window by window.

    nll: difference in nats a token. kept: recall and precision of the dense model's set of
    (layer, head, token) sinks, first token and guarded later tokens apart.
    """

    name: str
    ppl: float
    nll: Interval
    sinks: Counts
    kept: Agreement


def loaded_model(reading: Reading, progress: Progress) -> Loaded:
    """The model, with a line for whatever takes time."""
    settle(progress)
    with progress.task(f"load {reading.model}") as advance:
        return load(reading.model, device=reading.device, advance=advance, on_disk=reading.on_disk)


def material(loaded: Loaded, reading: Reading, sizes: Sizes, progress: Progress) -> Material:
    """Calibration windows from one half of the text, evaluation and sink windows of the other.

    Raises:
        BadOption: too few windows for an interval, or a length that cannot be measured on.
        UnreadableText: the file cannot be used.
        BadInput: the text is too short, or the BOS policy cannot be met.
    """
    _check(sizes, longest(loaded.model))
    calibration, _, _ = _windows(loaded, reading, "calibration", sizes.context, sizes.calibration)
    evaluation, encoded, text = _windows(
        loaded, reading, "evaluation", sizes.context, sizes.windows
    )
    sequences, _, _ = _windows(loaded, reading, "evaluation", sizes.seq, sizes.sequences)
    progress.say(f"BOS: {encoded.decision}; first ids {evaluation[0, :4].tolist()}")
    inputs = described(loaded, reading, encoded, text)
    bos_id = int(encoded.ids[0]) if encoded.bos else None
    return Material(calibration, evaluation, sequences, bos_id, inputs)


def longest(model: PreTrainedModel) -> int:
    """Tokens that the model was made for; without a word on it, any number."""
    text = model.config.get_text_config(decoder=True)
    return getattr(text, "max_position_embeddings", None) or sys.maxsize


def _check(sizes: Sizes, most: int) -> None:
    within("calibration", sizes.calibration, 1)
    # One unit has no interval.
    within("windows", sizes.windows, 2)
    within("sequences", sizes.sequences, 2)
    within("seq", sizes.seq, sinks.SHORTEST, most)
    within("context", sizes.context, 3, most)


def described(
    loaded: Loaded, reading: Reading, encoded: tokens.Encoded, text: Text | None
) -> Inputs:
    """What the run store keeps of model, text and first tokens."""
    return Inputs(
        model=loaded.name,
        model_sha256=loaded.sha256,
        text=text.source if text else "prompt",
        text_sha256=text.sha256 if text else None,
        bos=encoded.decision,
        first_ids=tuple(encoded.ids[:4].tolist()),
        device=reading.device,
        dtype=str(loaded.model.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        kernels=_kernels_here(reading.device, loaded.model.dtype),
    )


def _kernels_here(device: str, dtype: torch.dtype) -> dict[str, str]:
    """The implementations that OATS' thresholding and the reading of attention run here."""
    row = torch.ones(1, 2, device=device)
    heads = torch.ones(1, 1, 2, 4, device=device, dtype=dtype)
    return {
        "hard_threshold": hard_threshold.run(row, 1).backend,
        "sink_mass": sink_mass.run(heads, heads, heads, scaling=0.5).backend,
    }


def _windows(
    loaded: Loaded, reading: Reading, half: Half, seq: int, count: int
) -> tuple[Int[Tensor, "windows seq"], tokens.Encoded, Text]:
    source = read_text(reading.text, half)
    # Tokenizing a whole half costs seconds; English has more than two characters a token.
    enough = source.text[: 16 * seq * count]
    encoded = tokens.encode(loaded.tokenizer, enough, bos=reading.bos)
    return tokens.windows(encoded, seq, count), encoded, source


def measure(
    model: PreTrainedModel,
    material: Material,
    progress: Progress,
    name: str,
    ranks: TorchRanks | None = None,
) -> Measured:
    """Losses on the evaluation windows and sink scores on the sink sequences.

    `ranks` take a share of both each; the answer is that of one process, bit for bit, on all.
    """
    windows, groups = material.evaluation, material.sequences.split(AT_ONCE)
    with progress.task(name, len(windows) + len(groups)) as advance:
        nll = window_losses(model, windows, material.bos_id, advance, ranks)
        scores = sink_scores(model, material.sequences, advance, ranks)
    return Measured(nll, scores)


def window_losses(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows seq"],
    bos_id: int | None,
    advance: Advance,
    ranks: TorchRanks | None = None,
) -> Float[np.ndarray, " windows"]:
    """Mean nats a token of each window, by itself."""
    if ranks is not None:
        own = windows[slice(*share(len(windows), ranks.rank, ranks.size))]
        nll = window_losses(model, own, bos_id, advance) if len(own) else np.zeros(0)
        return np.concatenate(gathered(ranks, [nll]))
    seq = windows.shape[1]
    body = windows[:, 1:] if bos_id is not None else windows
    losses = evaluate.token_losses(
        model, body.flatten(), context=seq, stride=body.shape[1], prefix=bos_id, advance=advance
    )
    nll, window = losses.nll.numpy(), losses.window.numpy()
    return np.bincount(window, nll) / np.bincount(window)


def sink_scores(
    model: PreTrainedModel,
    ids: Int[Tensor, "sequences seq"],
    advance: Advance,
    ranks: TorchRanks | None = None,
) -> Float[np.ndarray, "layer sequences head key"]:
    """alpha for every layer, sequence, query head and key.

    Of equation 1; in a block with a window over the queries that see the key (`windowed_score`).
    `ranks` share the groups of sequences that pass the model together; a group for which there is
    no memory passes in halves. Raises BadInput where one sequence is too much.
    """
    groups = ids.split(AT_ONCE)
    if ranks is not None:
        groups = groups[slice(*share(len(groups), ranks.rank, ranks.size))]
    found = []
    for group in groups:
        parts = by_halves(
            lambda some: np.stack(capture_blocks(model, some, block_score)), group, "the sinks"
        )
        found.append(np.concatenate(parts, axis=1))
        advance("sinks")
    return np.concatenate(found if ranks is None else gathered(ranks, found), axis=1)


def gathered(
    ranks: TorchRanks, found: Sequence[Float[np.ndarray, "..."]]
) -> list[Float[np.ndarray, "..."]]:
    """The arrays of all ranks, in the order of ranks, bit for bit, on every rank."""
    own = {str(index): torch.from_numpy(array) for index, array in enumerate(found)}
    return [array.numpy() for _, held in ranks.each((None, own)) for array in held.values()]


def block_score(block: BlockTrace) -> Float[np.ndarray, "sequences head key"]:
    """alpha of one block, as `sink_scores` reads it."""
    causal = reach.causal_reach(block.real)
    if (block.reach == causal)[block.real].all():
        return sinks.score(block.received)
    return windowed_score(block, causal)


def windowed_score(
    block: BlockTrace, causal: Int[np.ndarray, "sequences key"]
) -> Float[np.ndarray, "sequences head key"]:
    """Received over reach, and 0 where a window makes sinks of a head without preference.

    Equation 1 would divide by queries that cannot see the key. A key that is countable in full
    attention but not behind the window (`reach.countable`) is no evidence of a sink, and has none;
    the tail stays as it is, for it is counted apart.
    """
    null = reach.null_received(block.heads.low, block.heads.high, block.real)
    doubtful = (causal > sinks.SUPPORT) & ~reach.countable(block.reach, null, epsilon=EPSILON)
    return np.where(doubtful[:, None], 0, sinks.score(block.received, block.reach))


def counts(
    scores: Float[np.ndarray, "layer sequences head key"], epsilon: float = EPSILON
) -> Counts:
    """Sinks a sequence over all heads of all layers: first token, guarded later ones, all."""
    found = sinks.sinks(scores, epsilon)
    later = found[..., sinks.guarded(scores.shape[-1])]
    totals = (found[..., 0].sum(axis=(0, 2)), later.sum(axis=(0, 2, 3)), found.sum(axis=(0, 2, 3)))
    return Counts(*(interval(total.astype(np.float64)) for total in totals))


def effect(name: str, changed: Measured, dense: Measured) -> Effect:
    """The changed model beside the dense one, on the same windows and sequences."""
    agreement = sinks.agreement(
        sinks.sinks(changed.scores, EPSILON), sinks.sinks(dense.scores, EPSILON)
    )
    return Effect(
        name=name,
        # A broken model's loss can be past what exp holds.
        ppl=float(np.exp(min(changed.nll.mean(), 700.0))),
        nll=interval(changed.nll - dense.nll),
        sinks=counts(changed.scores),
        kept=agreement,
    )
