"""Prompts of four kinds, made from templates: many of each, so that a kind has an interval.

Chain of thought without and with worked examples, inference, and multiple choice: the kinds of
figures 7 to 11 of Zhang & Papyan 2025 (arXiv:2502.00919), which does not print its prompts' texts
where they could be read here. Whether an answer is true plays no part.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from experiments.parts.catch.facts import CITIES

_NAMES = ("Nora", "Omar", "Lucia", "Pavel", "Ines", "Kofi", "Mei", "Jonas", "Asha", "Tomas")
_THINGS = ("books", "rolls", "stamps", "apples", "letters", "tiles", "candles", "shells", "coins")
_HOLDERS = ("shelves", "trays", "albums", "crates", "bags", "boxes", "rows", "jars", "drawers")
_ENDS = ("gives away", "sells", "loses", "packs", "paints", "lends to a friend")
_PLACES = ("lighthouse", "museum", "mill", "library", "theatre", "harbour office", "greenhouse")
_WHO = ("volunteers", "students", "retired teachers", "sailors", "neighbours", "gardeners")
_WHEN = ("every Sunday", "in the summer", "twice a month", "on clear evenings", "after the harvest")
_UNLESS = ("the wind is too strong", "it rains", "the road is closed", "a concert is held there")

Generator = np.random.Generator
Kind = Literal["zero-shot", "worked", "inference", "multiple-choice"]


def prompts(kind: Kind, count: int, seed: int) -> list[str]:
    """`count` prompts of a kind, each from its own numbers; the same for the same seed."""
    number = list(KINDS).index(kind)
    return [KINDS[kind](np.random.default_rng([seed, number, i])) for i in range(count)]


def _one(generator: Generator, words: tuple[str, ...]) -> str:
    return words[int(generator.integers(len(words)))]


def _sum(generator: Generator, *, worked: bool) -> str:
    name, thing, holder = (_one(generator, words) for words in (_NAMES, _THINGS, _HOLDERS))
    many, each = (int(n) for n in generator.integers(3, 13, 2))
    end, whole = _one(generator, _ENDS), many * each
    less = int(generator.integers(2, whole))
    asked = (
        f"Question: {name} has {many} {holder} with {each} {thing} on each of them. Later that day "
        f"{name} {end} {less} of the {thing}. How many {thing} are left?\nAnswer:"
    )
    if not worked:
        return asked
    return (
        f"{asked} There are {many} {holder} with {each} {thing} each, so there are {many} * {each} "
        f"= {whole} {thing}. {name} {end} {less}, so {whole} - {less} = {whole - less} {thing} are "
        f"left. The answer is {whole - less}.\n\n"
    )


def _zero_shot(generator: Generator) -> str:
    return (
        "Read the question carefully, write down what is known, and reason before you answer. "
        f"Check every step, and give a whole number in the end.\n\n"
        f"{_sum(generator, worked=False)} Let's think step by step. First,"
    )


def _worked(generator: Generator) -> str:
    return _sum(generator, worked=True) + _sum(generator, worked=False)


def _nli(generator: Generator) -> str:
    place, who, when, unless = (_one(generator, w) for w in (_PLACES, _WHO, _WHEN, _UNLESS))
    other = _one(generator, _WHEN)
    return (
        f"Premise: The old {place} at the edge of the town was repaired last year, and since then "
        f"a group of {who} has opened it to visitors {when}, unless {unless}.\n"
        f"Hypothesis: Visitors can see the {place} {other}.\n"
        "Does the premise entail the hypothesis? Give one of: entailment, neutral, contradiction."
        "\nLabel:"
    )


def _choice(generator: Generator) -> str:
    shown = generator.choice(len(CITIES), 12, replace=False).reshape(4, 3)
    letters = "ABC"
    blocks = []
    for row in shown.tolist():
        right = int(generator.integers(3))
        options = "\n".join(f"{c}. {CITIES[i][1]}" for c, i in zip(letters, row, strict=True))
        asked = f"Question: In which country is {CITIES[row[right]][0]}?\n{options}\nAnswer:"
        blocks.append(asked + f" {letters[right]}")
    return "\n\n".join(blocks)[:-2]


KINDS: dict[Kind, Callable[[Generator], str]] = {
    "zero-shot": _zero_shot,
    "worked": _worked,
    "inference": _nli,
    "multiple-choice": _choice,
}
