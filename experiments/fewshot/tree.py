"""log p of endings after beginnings, where what rows begin with alike is computed once.

Rows are sorted, so those with a common beginning are neighbours: a walk down this tree extends
the keys and values of the path by what all rows below share, and runs what is left in batches.
Causal attention sees nothing behind a token, so rows of a batch are padded on the right and
need no mask: the answers are those of whole rows, in another order of sums.
"""

import copy
import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from experiments.progress import Advance
from mech.errors import BadInput

WORTH = 12
"""Tokens that several rows share, from which on running them apart pays."""
BATCH, HELD = 1024, 16384
"""Tokens of a batch that are run, and those that it attends to."""


class Row(NamedTuple):
    """Token ids, of which those from `known` on are scored; 0 < known < len(ids)."""

    ids: tuple[int, ...]
    known: int


class Scored(NamedTuple):
    """Σ log p of a row's scored tokens, and whether each of them was the likeliest."""

    logp: float
    greedy: bool


class _Leaf(NamedTuple):
    """An input that one row or several read, and the first position that any scores."""

    ids: tuple[int, ...]
    known: int


class _Path(NamedTuple):
    """The first `at` tokens, as the keys and values that they leave."""

    cache: DynamicCache | None
    at: int


@torch.no_grad()
def scored(
    model: PreTrainedModel,
    rows: Sequence[Row],
    advance: Advance = lambda _: None,
    *,
    whole: bool = False,
) -> list[Scored]:
    """Σ_{t >= known} log p(ids_t | ids_<t) of every row, in float64 from the model's logits.

    whole: no cache and no batches; every different input is run once, from its first token.
    Raises BadInput where a row is longer than the model was made for.
    """
    _fits(model, max((len(row.ids) for row in rows), default=0))
    wanted: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        wanted.setdefault(row.ids[:-1], []).append(number)
    leaves = [_Leaf(ids, min(rows[i].known for i in some)) for ids, some in wanted.items()]
    found: dict[int, Scored] = {}
    walk = _each if whole else _walk
    for leaf, begin, logits in walk(model, sorted(leaves)):
        for number in wanted[leaf.ids]:
            found[number] = _one(rows[number], begin, logits)
            advance("rows")
    return [found[number] for number in range(len(rows))]


def _one(row: Row, begin: int, logits: Tensor) -> Scored:
    """logits: of the tokens from position `begin` + 1 on."""
    said = logits[row.known - 1 - begin : len(row.ids) - 1 - begin]
    ids = torch.tensor(row.ids[row.known :], device=said.device)
    logp = said.double().log_softmax(-1).gather(-1, ids[:, None])
    return Scored(float(logp.sum()), bool((said.argmax(-1) == ids).all()))


Found = Iterator[tuple[_Leaf, int, Tensor]]


def _walk(model: PreTrainedModel, leaves: list[_Leaf]) -> Found:
    """Every leaf with the logits of its last tokens, and the position of the first of them."""
    left: list[_Leaf] = []
    root = _Path(None, 0)
    yield from _below(model, leaves, root, left)
    yield from _run(model, left, root)


def _each(model: PreTrainedModel, leaves: list[_Leaf]) -> Found:
    for leaf in leaves:
        keep = len(leaf.ids) - leaf.known + 1
        yield leaf, leaf.known - 1, _logits(model, torch.tensor([leaf.ids]), None, keep)[0]


def _below(model: PreTrainedModel, leaves: list[_Leaf], path: _Path, left: list[_Leaf]) -> Found:
    """Run the groups of leaves that share enough beyond the path; add the others to `left`."""
    if len(leaves) == 1:
        left += leaves
        return
    common = _common(leaves[0].ids, leaves[-1].ids)
    reach = min(common, min(leaf.known for leaf in leaves) - 1)
    if reach - path.at >= WORTH:
        inner = _extended(model, path, leaves[0].ids[:reach])
        rest: list[_Leaf] = []
        yield from _parts(model, leaves, common, inner, rest)
        yield from _run(model, rest, inner)
    else:
        yield from _parts(model, leaves, common, path, left)


def _parts(
    model: PreTrainedModel, leaves: list[_Leaf], common: int, path: _Path, left: list[_Leaf]
) -> Found:
    for _, part in itertools.groupby(leaves, key=lambda leaf: leaf.ids[common : common + 1]):
        yield from _below(model, list(part), path, left)


def _common(first: tuple[int, ...], last: tuple[int, ...]) -> int:
    """How many ids two rows begin with alike; of sorted rows, the first and last say it of all."""
    pairs = zip(first, last, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))


def _extended(model: PreTrainedModel, path: _Path, ids: tuple[int, ...]) -> _Path:
    cache = DynamicCache(config=model.config) if path.cache is None else copy.deepcopy(path.cache)
    _logits(model, torch.tensor([ids[path.at :]]), cache, 1)
    return _Path(cache, len(ids))


def _run(model: PreTrainedModel, leaves: list[_Leaf], path: _Path) -> Found:
    for batch in _batches(sorted(leaves, key=lambda leaf: (len(leaf.ids), leaf.ids)), path.at):
        width = len(batch[-1].ids) - path.at
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        for line, leaf in zip(ids, batch, strict=True):
            line[: len(leaf.ids) - path.at] = torch.tensor(leaf.ids[path.at :])
        begin = min(leaf.known for leaf in batch) - 1
        cache = copy.deepcopy(path.cache)
        if cache is not None:
            cache.batch_repeat_interleave(len(batch))
        logits = _logits(model, ids, cache, path.at + width - begin)
        for leaf, mine in zip(batch, logits, strict=True):
            yield leaf, begin, mine


def _batches(leaves: Sequence[_Leaf], at: int) -> Iterator[list[_Leaf]]:
    """Neighbours in batches; leaves come by length, so a batch's last one is its longest."""
    batch: list[_Leaf] = []
    for leaf in leaves:
        count = len(batch) + 1
        long = len(leaf.ids)
        if batch and (count * (long - at) > BATCH or count * long > HELD):
            yield batch
            batch = []
        batch.append(leaf)
    if batch:
        yield batch


def greedily(model: PreTrainedModel, ids: Int[Tensor, " seq"], most: int) -> Iterator[int]:
    """argmax_v p(v | ids, what was said), one token after another, at most `most` of them.

    Raises BadInput where text and answer do not fit into the model.
    """
    _fits(model, len(ids) + most)
    cache, fed = DynamicCache(config=model.config), ids[None]
    for _ in range(most):
        token = int(_logits(model, fed, cache, 1)[0, -1].argmax())
        yield token
        fed = torch.tensor([[token]])


def _fits(model: PreTrainedModel, length: int) -> None:
    text = model.config.get_text_config(decoder=True)
    longest = getattr(text, "max_position_embeddings", None)
    if longest is not None and length > longest:
        raise BadInput(
            f"a prompt has {length} tokens, the model was made for {longest}: show fewer examples"
        )


def _logits(
    model: PreTrainedModel, ids: Int[Tensor, "batch seq"], cache: DynamicCache | None, keep: int
) -> Tensor:
    """Logits of the last `keep` positions."""
    fewer = "logits_to_keep" in inspect.signature(model.forward).parameters
    logits = model(
        input_ids=ids.to(model.device),
        past_key_values=cache,
        use_cache=cache is not None,
        **({"logits_to_keep": keep} if fewer else {}),
    ).logits
    return logits[:, -keep:]
