"""Statements with a label, and what their last tokens are given by sinks and by the rest.

A head's output at a query q is Σ_k A[q, k] v_k. The part of the sinks is the tag, what is left the
rest; one other token of the statement is a control of as many tokens as a sink.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from experiments.parts.catch.facts import BLAME, CITIES, PRAISE
from experiments.progress import Advance
from experiments.settings import Bos
from mech.attention import pattern_rows
from mech.capture import capture_blocks
from mech.load import Loaded
from mech.tokens import Encoded, encode
from mech.trace import BlockTrace

FOLDS = 5
AT_ONCE = 20
AFTER = " That is what they say"
"""Stands behind every statement: its last token reads the full stop as a sink."""
Topic = Literal["cities", "moods"]


class Statements(NamedTuple):
    """Texts with their labels; a group is in one fold with all that shares its words."""

    texts: list[str]
    label: Int[np.ndarray, " statement"]
    group: Int[np.ndarray, " statement"]
    fold: Int[np.ndarray, " statement"]


def statements(topic: Topic, count: int, seed: int) -> Statements:
    """Cities: each with its country and with one of another city of its fold; moods: one a word.

    `count` is of groups. No city, no country and no word tells the label, and none is in two
    folds: each country stands once in a true and once in a false sentence.
    """
    generator = np.random.default_rng(seed)
    if topic == "cities":
        order = generator.permutation(len(CITIES))[:count]
        fold = np.arange(len(order)) % FOLDS
        wrong = np.empty_like(order)
        for f in range(FOLDS):
            wrong[fold == f] = np.roll(order[fold == f], 1)
        pairs = [(c, k) for c, w in zip(order, wrong, strict=True) for k in (c, w)]
        texts = [f"The city of {CITIES[c][0]} is in {CITIES[k][1]}." for c, k in pairs]
        group = np.arange(len(order)).repeat(2)
        return Statements(texts, np.tile([1, 0], len(order)), group, fold[group])
    half = count // 2
    words = [w for pair in zip(PRAISE[:half], BLAME[:half], strict=True) for w in pair]
    texts = [f"I saw the {of} yesterday. It was {w}." for w in words for of in ("film", "play")]
    group = np.arange(len(words)).repeat(2)
    return Statements(texts, 1 - group % 2, group, group // 2 % FOLDS)


def encoded(loaded: Loaded, texts: Sequence[str], bos: Bos) -> tuple[list[Encoded], list[int]]:
    """Every text with AFTER behind it, and the place of its full stop; raises BadInput for BOS."""
    tokenizer = loaded.tokenizer
    whole = [encode(tokenizer, text + AFTER, bos=bos) for text in texts]
    return whole, [len(encode(tokenizer, text, bos=bos).ids) - 1 for text in texts]


class Given(NamedTuple):
    """What every head gives to one query of each statement, layer by layer.

    first, stop, other: A[q, s] v_s of the first token, of the full stop (0 where it is q) and of
    one other token of the statement; whole: z_q. attention: A[q, s] of the first two.
    """

    first: Float[np.ndarray, "layer statement head d_head"]
    stop: Float[np.ndarray, "layer statement head d_head"]
    other: Float[np.ndarray, "layer statement head d_head"]
    whole: Float[np.ndarray, "layer statement head d_head"]
    attention: Float[np.ndarray, "layer statement head 2"]


def given(
    model: PreTrainedModel,
    ids: Sequence[Int[Tensor, " seq"]],
    stop: Sequence[int],
    seed: int,
    advance: Advance,
) -> tuple[Given, Given]:
    """At the full stop itself, and at the last token; stop[i] is its place in ids[i]."""
    import torch

    generator = np.random.default_rng(seed)
    other = np.array([int(generator.integers(1, place)) for place in stop])
    kinds = sorted({(len(each), place) for each, place in zip(ids, stop, strict=True)})
    rows: list[int] = []
    found: list[list[tuple[np.ndarray, ...]]] = []
    for length, place in kinds:
        same = [i for i, each in enumerate(ids) if (len(each), stop[i]) == (length, place)]
        for start in range(0, len(same), AT_ONCE):
            now = same[start : start + AT_ONCE]
            at = other[now]
            batch = torch.stack([ids[i] for i in now])
            found.append(capture_blocks(model, batch, lambda b, p=place, o=at: _read(b, p, o)))
            rows += now
            advance("statements")
    order = np.argsort(rows, kind="stable")
    joined = [np.stack([layer[part] for layer in batch]) for batch in found for part in range(5)]
    whole = [np.concatenate(joined[part::5], axis=2)[:, :, order] for part in range(5)]
    return Given(*(part[:, 0] for part in whole)), Given(*(part[:, 1] for part in whole))


def _read(
    block: BlockTrace, stop: int, other: Int[np.ndarray, " statement"]
) -> tuple[Float[np.ndarray, "2 statement head some"], ...]:
    queries = np.array([stop, block.z.shape[2] - 1])
    pattern = pattern_rows(block.heads, queries).transpose(2, 0, 1, 3)
    groups = block.heads.query.shape[1] // block.heads.key.shape[1]
    value = block.heads.value.repeat(groups, axis=1)
    row = np.arange(len(value))
    full = pattern[..., stop].copy()
    full[0] = 0  # what a token writes into itself is no tag
    drawn = pattern[:, row, :, other].swapaxes(0, 1)
    return (
        pattern[..., 0, None] * value[:, :, 0],
        full[..., None] * value[:, :, stop],
        drawn[..., None] * value[row, :, other],
        block.z[:, :, queries].transpose(2, 0, 1, 3),
        np.stack([pattern[..., 0], full], axis=-1),
    )


def parts(given: Given, epsilon: float) -> dict[str, Float[np.ndarray, "layer statement d"]]:
    """tag: of the first token and the full stop, in heads that give them more than ε on average.

    rest: the output without them; whole: with them; other: of one other token. Heads lie side by
    side. A head without a sink has a tag of 0.
    """
    caught = given.attention.mean(axis=1, keepdims=True) > epsilon
    tag = given.first * caught[..., 0, None] + given.stop * caught[..., 1, None]
    split = {"tag": tag, "rest": given.whole - tag, "whole": given.whole, "other": given.other}
    return {name: x.reshape(*x.shape[:2], -1) for name, x in split.items()}
