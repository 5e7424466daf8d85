"""What the chain is judged on: windows of text, and tasks of which every item has others before it.

Layers, heads and directions come from other text; see `aim`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments import measure
from experiments.fewshot.task import Item, Task
from experiments.fewshot.tasks import task as task_named
from experiments.parts.chain.links import Aim
from experiments.parts.chain.measure import Units, Values, labelled
from experiments.parts.chain.one_pass import Look, Passed, batches, dense_pass
from experiments.probing.causal import late_sinks
from experiments.probing.release import choose
from experiments.settings import BadOption, within
from mech.blocks import decoder_blocks
from mech.causal import elsewhere
from mech.probes import sinks
from mech.reach import Sinks
from mech.tokens import encode

HEADS = 4  # whose outputs are grouped
AFTER = 1  # blocks between the strongest head and the stream in which segments are read
DRAWS = 256  # random directions of which the one of the nearest variance is the control


class Scored(NamedTuple):
    """One answer inside a stream of items: the logits at `at` choose among `choices`."""

    at: int
    choices: tuple[int, ...]
    gold: int


def text_units(model: PreTrainedModel, ids: Int[Tensor, "unit seq"], early: Sequence[int]) -> Units:
    """Windows of text; the outcome is nats a token."""

    def outcome(passed: Passed, rows: slice) -> Values:
        return {"nats": _nats(passed.logits, ids[rows])}

    named, random = _sinks(model, ids, early)
    return Units("text", ids, named, random, outcome, segments=True)


def task_units(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    early: Sequence[int],
    *,
    streams: int,
    seq: int,
    shots: int,
) -> Units:
    """Streams of one task's items with their right answers, each drawn by a seed of its own.

    The outcome is the accuracy among an item's choices, mean over the items that have at least
    `shots` others before them, and their nats: -log p of the right answer's first token.
    """
    within("streams", streams, 2)
    drawn = [_stream(tokenizer, task_named(name, None, 64, seed), seq) for seed in range(streams)]
    ids = torch.stack([ids for ids, _ in drawn])
    scored = [items[shots:] for _, items in drawn]
    if not all(scored):
        raise BadOption(f"--task-seq {seq}: no item of {name} has {shots} others before it")

    def outcome(passed: Passed, rows: slice) -> Values:
        found = [_answered(passed.logits[row], items) for row, items in enumerate(scored[rows])]
        right, nats = np.array(found).T
        return {f"{name}: accuracy": right, f"{name}: nats": nats}

    named, random = _sinks(model, ids, early)
    return Units(name, ids, named, random, outcome)


def shot_curve(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    *,
    streams: int,
    seq: int,
    shots: int,
) -> Float[np.ndarray, "unit 2"]:
    """Accuracy of each stream's first item, and of those with at least `shots` before them."""
    found = []
    for seed in range(streams):
        ids, items = _stream(tokenizer, task_named(name, None, 64, seed), seq)
        with torch.no_grad():
            logits = model(ids[None].to(model.device), use_cache=False).logits[0]
        found.append([_answered(logits, part)[0] for part in (items[:1], items[shots:])])
    return np.array(found)


def aim(
    model: PreTrainedModel, ids: Int[Tensor, "unit seq"], *, times: float = 2.0, seed: int = 0
) -> Aim:
    """From these windows alone: early layers, tagging heads, the directions of segments.

    Early layers have more than `times` the mean layer's guarded later sinks, as in
    `probing.causal`. Tags are looked for in the heads with most of them, segments AFTER blocks
    behind the strongest and further, to the last early layer. A block's direction is the mean
    stream of tokens that a later sink caught less that of the first token's: without it no
    straight line tells the two apart (their means are one). The control is a random mixture of
    tokens with nearest variance.

    Raises:
        BadOption: the model has no later sinks there.
    """
    scores = measure.sink_scores(model, ids, lambda _: None)
    count = sinks.sinks(scores)[..., sinks.guarded(scores.shape[-1])].sum(axis=(1, 2, 3))
    early = tuple(np.flatnonzero(count > times * count.mean()).tolist())
    places = tuple(choose(scores[list(early)], measure.EPSILON, HEADS)) if early else ()
    if not places:
        raise BadOption("this model has no later sinks on the text that aims: take another one")
    places = tuple((early[layer], head) for layer, head in places)
    last = len(decoder_blocks(model)) - 1
    first = min(places[0][0] + AFTER, last)
    blocks = tuple(range(first, max(early[-1], first) + 1))
    named = tuple((0, *row) for row in late_sinks(scores[list(early)], measure.EPSILON))
    found = Aim(len(scores), early, None, places, blocks, {}, {}, {})
    return _directed(model, ids, named, found, seed)


def _directed(
    model: PreTrainedModel, ids: Int[Tensor, "unit seq"], named: Sinks, found: Aim, seed: int
) -> Aim:
    streams: dict[int, list[np.ndarray]] = {block: [] for block in found.blocks}
    late = []
    for rows in batches(len(ids), measure.AT_ONCE):
        look = Look(found.places, found.blocks)
        passed, dense = dense_pass(model, ids[rows], named[rows], named[rows], look)
        late += labelled(passed, dense, named[rows], found)
        for block in found.blocks:
            streams[block] += list(passed.streams[block])
    like = next(model.parameters())
    for block in found.blocks:
        pairs = list(zip(streams[block], late, strict=True))
        basis, control, mean = directions(
            np.concatenate([h[each >= 0] for h, each in pairs]),
            np.concatenate([each[each >= 0] for each in late]),
            seed,
        )
        for kept, array in ((found.basis, basis), (found.control, control), (found.mean, mean)):
            kept[block] = torch.from_numpy(array).to(like)
    return found


def directions(
    vectors: Float[np.ndarray, "token d_model"], labels: Int[np.ndarray, " token"], seed: int = 0
) -> tuple[
    Float[np.ndarray, "k d_model"], Float[np.ndarray, "k d_model"], Float[np.ndarray, " d_model"]
]:
    """Orthonormal rows that span μ_g - μ_0 over the groups g, as many random ones, and the mean.

    The random ones are orthogonal to the first; each is the one of DRAWS mixtures of tokens whose
    variance is nearest to that along its partner. Raises BadOption for a single group.
    """
    vectors = vectors.astype(np.float64)
    names = np.unique(labels)
    if len(names) < 2:
        raise BadOption("all tokens of the text that aims were caught by one sink: take more of it")
    means = np.stack([vectors[labels == name].mean(axis=0) for name in names])
    basis = np.linalg.qr((means[1:] - means[0]).T)[0].T
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    generator = np.random.default_rng(seed)
    control: list[np.ndarray] = []
    for row in basis:
        drawn = generator.standard_normal((DRAWS, len(centred))) @ centred
        taken = np.stack([*basis, *control])
        drawn -= drawn @ taken.T @ taken
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        wanted = np.log(np.var(centred @ row))
        nearest = np.abs(np.log(np.var(centred @ drawn.T, axis=0)) - wanted).argmin()
        control.append(drawn[nearest])
    return basis, np.stack(control), mean


def _sinks(
    model: PreTrainedModel, ids: Int[Tensor, "unit seq"], early: Sequence[int]
) -> tuple[Sinks, Sinks]:
    """The first token and the later sinks of the early layers; as many random other tokens."""
    scores = measure.sink_scores(model, ids, lambda _: None)[list(early)]
    named = tuple((0, *row) for row in late_sinks(scores, measure.EPSILON))
    return named, elsewhere(named, ids.shape[1], avoid=((0,),) * len(named), seed=1)


def _nats(logits: Tensor, ids: Int[Tensor, "row seq"]) -> Float[np.ndarray, " row"]:
    flat = nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten().to(logits.device),
        reduction="none",
    )  # fmt: skip
    return flat.reshape(len(ids), -1).double().mean(dim=1).cpu().numpy()


def _stream(
    tokenizer: PreTrainedTokenizerBase, task: Task, seq: int
) -> tuple[Int[Tensor, " seq"], list[Scored]]:
    """The task's items with their answers, cut at `seq` tokens, and where each is answered."""
    before, scored = "", []
    for item in task.items:
        known = encode(tokenizer, before + item.context).ids
        if len(known) > seq:
            return known[:seq], scored
        scored.append(_scored(tokenizer, before, item, len(known)))
        before += item.context + item.choices[item.gold] + task.between
    raise BadOption(f"--task-seq {seq}: a stream of {task.name} is shorter")


def _scored(tokenizer: PreTrainedTokenizerBase, before: str, item: Item, known: int) -> Scored:
    whole = [encode(tokenizer, before + item.context + choice).ids for choice in item.choices]
    first = tuple(int(ids[known]) for ids in whole)
    if len(set(first)) < len(first):
        raise BadOption(f"the answers {item.choices} begin with the same token: take another task")
    return Scored(known - 1, first, item.gold)


def _answered(logits: Float[Tensor, "seq vocabulary"], items: Sequence[Scored]) -> tuple:
    """Share of items answered rightly, and mean -log p of the right answer's first token."""
    right, nats = [], []
    for item in items:
        logp = logits[item.at].double().log_softmax(-1)
        chosen = logp[list(item.choices)]
        right.append(int(chosen.argmax()) == item.gold)
        nats.append(-float(chosen[item.gold]))
    return float(np.mean(right)), float(np.mean(nats))
