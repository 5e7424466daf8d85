"""Tasks by name: read from local files, or generated, where it is known what has to be done."""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.fewshot import mmlu
from experiments.fewshot.task import Item, Task
from experiments.fewshot.words import KINDS
from experiments.settings import BadOption, within

EXAMPLES = 16
"""Items kept aside to be shown before others; the first k of them are shown."""


class _File(NamedTuple):
    """A line of it: {"query": str, "choices": [str, ...], "gold": int}. ending: of a query."""

    name: str
    ending: str


LOCAL = {
    "arc-easy": _File("arc_easy.jsonl", "\nAnswer:"),
    "openbookqa": _File("openbook_qa.jsonl", ""),
    "piqa": _File("piqa.jsonl", "Answer:"),
    "boolq": _File("boolq.jsonl.gz", "\nAnswer:"),
}
MMLU = "mmlu"


def task(name: str, folder: Path | None = None, limit: int = 100, seed: int = 0) -> Task:
    """`limit` items and `EXAMPLES` others to show, drawn by the seed; the same every time.

    A task of `LOCAL` is read from `folder`: its items are the first of a random order of the
    file's lines, its examples the next. A task of `GENERATED` is made here.

    Raises:
        BadOption: an unknown name, a local task without its file, or more items than there are.
    """
    within("limit", limit, 1)
    draw = np.random.default_rng([seed, *hashlib.sha256(name.encode()).digest()[:4]])
    if name in GENERATED:
        made, between = GENERATED[name]
        items = made(draw, limit + EXAMPLES)
        return Task(name, items[EXAMPLES:], items[:EXAMPLES], between)
    if name == MMLU:
        return _mmlu(folder, limit, draw)
    if name not in LOCAL:
        raise BadOption(f"--task {name}: give one of {', '.join(names())}")
    rows = _read(name, folder)
    if len(rows) < limit + EXAMPLES:
        raise BadOption(
            f"--limit {limit}: {name} has {len(rows)} items, of which {EXAMPLES} are examples"
        )
    order = draw.permutation(len(rows))[: limit + EXAMPLES]
    items = tuple(rows[index] for index in order)
    return Task(name, items[:limit], items[limit:])


def names() -> tuple[str, ...]:
    """All tasks, those of local files first."""
    return (*LOCAL, MMLU, *GENERATED)


def _mmlu(folder: Path | None, limit: int, draw: np.random.Generator) -> Task:
    """Its folder lies in `folder` or beside it; its examples are of the dev part."""
    if folder is None:
        raise BadOption("--tasks: mmlu is read from a folder; give the one that holds mmlu/")
    place = next((p for p in (folder / MMLU, folder.parent / MMLU) if p.is_dir()), folder / MMLU)
    items, examples = mmlu.items(place, "test"), mmlu.items(place, "dev")
    if limit > len(items):
        raise BadOption(f"--limit {limit}: mmlu has {len(items)} items")
    shown = draw.permutation(len(examples))[:EXAMPLES]
    asked = draw.permutation(len(items))[:limit]
    return Task(MMLU, tuple(items[i] for i in asked), tuple(examples[i] for i in shown))


def _read(name: str, folder: Path | None) -> list[Item]:
    file, ending = LOCAL[name]
    if folder is None:
        raise BadOption(f"--tasks: {name} is read from {file}; give the folder that holds it")
    path = folder / file
    if not path.is_file():
        raise BadOption(f"--tasks {folder}: there is no {file}, which {name} is read from")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            return [_item(json.loads(line), ending) for line in lines]
    except (ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        raise BadOption(
            f'{path}: not lines of {{"query": ..., "choices": [...], "gold": 0}} ({error})'
        ) from error


def _item(row: dict, ending: str) -> Item:
    choices = tuple(f" {choice}" for choice in row["choices"])
    gold = row["gold"]
    if type(gold) is not int or not 0 <= gold < len(choices):
        raise ValueError(f"gold {gold!r} of {len(choices)} choices")
    return Item(row["query"] + ending, choices, gold)


Make = Callable[[np.random.Generator, int], tuple[Item, ...]]


def _induction(draw: np.random.Generator, count: int) -> tuple[Item, ...]:
    """A list of eight words, then its beginning again: what comes next?

    The other choices stand in the list too, so that copying any word is worth 1/4.
    """

    def one() -> Item:
        words = _words(draw, 8)
        known = int(draw.integers(2, 6))
        others = [word for i, word in enumerate(words) if i not in (known - 1, known)]
        wrong = [others[i] for i in draw.permutation(len(others))[:3]]
        again = " ".join(words[:known])
        return _shuffled(draw, f"{' '.join(words)} . {again}", words[known], wrong)

    return tuple(one() for _ in range(count))


def _labels(draw: np.random.Generator, count: int) -> tuple[Item, ...]:
    """Animals and countries, and two labels that say nothing: examples tell which is which.

    No word is met twice, so a label is right only by its kind. Of any even number of words half
    are of each kind, so that neither label is the frequent one.
    """
    kinds = [[KINDS[kind][i] for i in draw.permutation(64)] for kind in ("animals", "countries")]
    if count > 128:
        raise BadOption(f"--limit: labels has {128 - EXAMPLES} items")
    labels = (" A", " B")
    gold = draw.permutation(2).tolist()
    items = []
    for pair in zip(*kinds, strict=True):
        for kind in draw.permutation(2):
            items.append(Item(f"{pair[kind]} :", labels, gold[kind]))
    return tuple(items[:count])


def _segment_copy(draw: np.random.Generator, count: int) -> tuple[Item, ...]:
    """Two segments of three words: the answer is the second one's first word, of six."""

    def one() -> Item:
        words = _words(draw, 6)
        context = f"{' '.join(words[:3])} | {' '.join(words[3:])} ="
        return _shuffled(draw, context, words[3], words[:3] + words[4:])

    return tuple(one() for _ in range(count))


def _segment_average(draw: np.random.Generator, count: int) -> tuple[Item, ...]:
    """Two segments of five values, yes or no: the answer is the second one's majority.

    The first segment is drawn by itself, so it says nothing: the theorem's averaging, read out.
    """
    if count > 1 << 10:
        raise BadOption(f"--limit: segment-average has {(1 << 10) - EXAMPLES} items")
    items = []
    for number in draw.permutation(1 << 10)[:count]:
        bits = [int(number) >> place & 1 for place in range(10)]
        said = [("no", "yes")[bit] for bit in bits]
        context = f"{' '.join(said[:5])} | {' '.join(said[5:])} ="
        items.append(Item(context, (" no", " yes"), int(sum(bits[5:]) > 2)))
    return tuple(items)


def _words(draw: np.random.Generator, count: int) -> list[str]:
    everything = [word for kind in sorted(KINDS) for word in KINDS[kind]]
    return [everything[i] for i in draw.permutation(len(everything))[:count]]


def _shuffled(draw: np.random.Generator, context: str, right: str, wrong: list[str]) -> Item:
    choices = [right, *wrong]
    order = draw.permutation(len(choices)).tolist()
    return Item(context, tuple(f" {choices[i]}" for i in order), order.index(0))


GENERATED: dict[str, tuple[Make, str]] = {
    "induction": (_induction, "\n\n"),
    "labels": (_labels, "\n"),
    "segment-copy": (_segment_copy, "\n"),
    "segment-average": (_segment_average, "\n"),
}
"""By name: how items are made, and what stands between two of them."""


def available(folder: Path | None) -> Iterator[str]:
    """The tasks that can be asked with this folder, or with none."""
    for name, (file, _) in LOCAL.items():
        if folder is not None and (folder / file).is_file():
            yield name
    yield from GENERATED
