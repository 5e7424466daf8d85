"""Secondary sinks, caused: rescale what the MLP that makes them writes, and read what is left."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from bridge.component import components
from bridge.stream import hooked
from experiments import recalls
from experiments.intervals import Interval
from experiments.probing.bootstrap import over_prompts
from experiments.probing.survey import AT_ONCE, followed
from experiments.probing.survey_read import Reader
from experiments.probing.survey_secondary import Place, Tracks
from experiments.progress import Advance
from experiments.recalls import Ratio
from mech.capture import capture_blocks
from mech.probes import secondary, sinks
from mech.probes.secondary import Span

MLP, ATTENTION = "MLP", "attention"
_LAST = {MLP: ("mlp", "down"), ATTENTION: ("attention", "o")}


class Rescaled(NamedTuple):
    """out_t → factor · out_t of block `layer`'s MLP or attention, at the marked tokens."""

    layer: int
    part: str
    factor: float
    where: Bool[np.ndarray, "prompt seq"]


def tracks(
    model: PreTrainedModel,
    ids: Int[Tensor, "prompt seq"],
    advance: Advance,
    edit: Rescaled | None = None,
) -> list[Tracks]:
    """Every prompt through the layers, of the model as it is or under the edit.

    Raises BadInput where the edit's block has no linear that writes for that part.
    """
    read = []
    for i, group in enumerate(ids.split(AT_ONCE)):
        hooks = [] if edit is None else [_hook(model, edit, slice(i * AT_ONCE, (i + 1) * AT_ONCE))]
        with hooked(hooks):
            read.append(capture_blocks(model, group, Reader(sinks.EPSILON)))
        advance("read")
    return followed(read, ids.cpu().numpy(), np.ones(ids.shape, bool))


def _hook(model: nn.Module, edit: Rescaled, rows: slice) -> tuple[nn.Module, str, object]:
    kind, role = _LAST[edit.part]
    own = next(c for c in components(model) if (c.kind, c.layer) == (kind, edit.layer))
    marked = torch.from_numpy(edit.where[rows])[..., None]

    def scaled(module, args, output: Tensor) -> Tensor:
        return torch.where(marked.to(output.device), edit.factor * output, output)

    return own.linears[role], "post", scaled


class Flagged(NamedTuple):
    """The later tokens of every prompt that are like its primary sink in the prompt's own span.

    blocks: the (block, token) pairs that read a flagged state. tokens: those tokens.
    others: as many random later tokens that are none of them.
    """

    spans: list[Span]
    blocks: list[Bool[np.ndarray, "layer seq"]]
    tokens: Bool[np.ndarray, "prompt seq"]
    others: Bool[np.ndarray, "prompt seq"]


def flagged(prompts: Sequence[Tracks], spans: Sequence[Span], seed: int = 0) -> Flagged:
    """By cosine alone, as the paper has it; each prompt in its own span."""
    rng = np.random.default_rng(seed)
    blocks, others = [], []
    for track, span in zip(prompts, spans, strict=True):
        like = secondary.sink_like(track.cosine, span) & track.later
        # Block l + 1 reads the state after block l.
        blocks.append(np.concatenate([np.zeros_like(like[:1]), like[:-1]]))
        chosen = np.zeros(len(track.later), bool)
        rest = np.flatnonzero(track.later & ~like.any(axis=0))
        count = min(int(like.any(axis=0).sum()), len(rest))
        chosen[rng.permutation(rest)[:count]] = True
        others.append(chosen)
    tokens = np.array([here.any(axis=0) for here in blocks])
    return Flagged(list(spans), blocks, tokens, np.array(others))


def drawn(prompts: Sequence[Tracks], found: Flagged) -> Float[np.ndarray, " prompt"]:
    """Σ of the mean α over heads, over the pairs of `blocks`; NaN where a prompt has none."""
    pairs = zip(prompts, found.blocks, strict=True)
    return np.array([p.score[b].sum() if b.any() else np.nan for p, b in pairs], float)


def lasted(prompts: Sequence[Tracks], found: Flagged) -> Float[np.ndarray, " prompt"]:
    """Σ over the tokens of the layers of the span in which they are like the primary sink."""
    counts = [
        secondary.sink_like(track.cosine, span)[:, tokens].sum()
        for track, span, tokens in zip(prompts, found.spans, found.tokens, strict=True)
    ]
    return np.where(found.tokens.any(axis=1), np.array(counts, float), np.nan)


def primary(prompts: Sequence[Tracks], found: Flagged) -> Float[np.ndarray, " prompt"]:
    """Mean α of the first token in the blocks that read the span; NaN without a secondary sink."""
    values = []
    for track, span, tokens in zip(prompts, found.spans, found.tokens, strict=True):
        inside = track.score[span.onset + 1 : span.end + 1, track.first]
        values.append(inside.mean() if tokens.any() and len(inside) else np.nan)
    return np.array(values, float)


def left(
    changed: Float[np.ndarray, " prompt"], dense: Float[np.ndarray, " prompt"]
) -> Interval | None:
    """Share that the edit leaves, over the prompts that have any; None below two."""
    some = np.isfinite(changed) & np.isfinite(dense)
    return recalls.share(Ratio(changed[some], dense[some])) if some.sum() > 1 else None


def less(seen: dict, edit: str, name: str) -> Interval | None:
    """What the edit adds, prompt by prompt, over those that have any; None below two."""
    return over_prompts(seen[edit][name] - seen["dense"][name]) if edit in seen else None


def spans_of(place: Place, prompts: Sequence[Tracks]) -> list[Span]:
    """The span of each prompt, as `survey_secondary.places` took it."""
    strict = place.name == "strict"
    return [track.within(track.span() if strict else place.span) for track in prompts]


EDITS = ("none", "attention", "half", "others")
"""The MLP writes nothing at them; attention does not; the MLP writes half; nothing at others."""


def read(prompts: Sequence[Tracks], found: Flagged) -> dict[str, Float[np.ndarray, " prompt"]]:
    """What the tokens draw, how long they are like the primary sink, and what that one draws."""
    return {
        "drawn": drawn(prompts, found),
        "lasted": lasted(prompts, found),
        "primary": primary(prompts, found),
        "middle": middle(found),
    }


def edited(
    model: PreTrainedModel,
    ids: Int[Tensor, "prompt seq"],
    maker: int,
    found: Flagged,
    advance: Advance,
) -> dict[str, dict[str, Float[np.ndarray, " prompt"]]]:
    """`read` of the same pairs of block and token under each of EDITS."""
    edits = {
        "none": Rescaled(maker, MLP, 0.0, found.tokens),
        "attention": Rescaled(maker, ATTENTION, 0.0, found.tokens),
        "half": Rescaled(maker, MLP, 0.5, found.tokens),
        "others": Rescaled(maker, MLP, 0.0, found.others),
    }
    return {name: read(tracks(model, ids, advance, edit), found) for name, edit in edits.items()}


def middle(found: Flagged) -> Float[np.ndarray, " prompt"]:
    """Share of the tokens that are first like the primary sink in the middle third of blocks."""
    values = []
    for blocks in found.blocks:
        layers = len(blocks)
        # Block l + 1 reads the state after block l.
        created = blocks[:, blocks.any(axis=0)].argmax(axis=0) - 1
        inside = (created >= layers // 3) & (created < layers - layers // 3)
        values.append(inside.mean() if len(created) else np.nan)
    return np.array(values, float)
