"""What the larger toy showed, as text, tables and pictures."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from experiments import larger_pictures
from experiments.larger_ranks import FOUND, each, fvu, low_rank, spread
from experiments.report import Picture, Section, Table

if TYPE_CHECKING:
    from experiments.toy_larger import Result, Variant
    from toy.larger.route import Dossier

Z = 1.959963984540054  # 97.5% quantile of the normal


def wilson(successes: int, n: int) -> tuple[float, float]:
    """(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n): a 95% interval (Wilson 1927)."""
    p, shrink = successes / n, 1 + Z**2 / n
    middle = (p + Z**2 / (2 * n)) / shrink
    half = Z * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / shrink
    return max(0.0, middle - half), min(1.0, middle + half)


def sections(result: "Result") -> list[Section]:
    """Does it learn, by which route, is it of low rank, and what do the probes see?"""
    return [_learns(result), _breaks(result), low_rank(result), _probes(result), _looks(result)]


def _learns(result: "Result") -> Section:
    rows = []
    for variant in result.variants:
        errors = each(variant, lambda one: one.seen.fvu)
        found, n = int((errors < FOUND).sum()), len(errors)
        low, high = wilson(found, n)
        routes = Counter(one.verdict.route for one in variant.dossiers)
        sink = each(variant, lambda one: one.seen.sink[0].max())
        ratio = each(variant, lambda one: one.seen.sep_over_number)
        louder = each(variant, lambda one: one.seen.tags[1].after_over_before)
        rows.append(
            (
                variant.name,
                spread(errors),
                f"{found}/{n} [{low:.2f}, {high:.2f}]",
                ", ".join(f"{count} {route}" for route, count in routes.most_common()),
                spread(sink),
                spread(ratio),
                spread(louder),
            )
        )
    one = next((v for v in result.variants if v.shape.layers == 1), None)
    text = [
        "Routes: sink, the theorem's (a head of layer 1 has over 0.9 of its attention on [SEP]); "
        "shared, the same with less; uniform, thresholds of an MLP on uniform attention; subtract, "
        "[SEP] takes away what came before it; none, it does not average. Each is decided by what "
        "breaks the seed.",
        f"Without order no model explains more: {result.blind_fvu:.3f} of the variance stays "
        "unexplained by the best function of the last number and of the set of the others, and one "
        "layer without positions is such a function"
        + (f"; trained, its best seed leaves {each(one, fvu).min():.3f}." if one else "."),
    ]
    uniform = result.variants[0].dossiers[0].seen.uniform_sink
    table = Table(
        (
            "variant",
            "variance unexplained",
            "seeds that average [95%]",
            "routes",
            "attention on [SEP], strongest head of layer 1",
            "length of [SEP] over numbers",
            "length after over before [SEP], after layer 1",
        ),
        rows,
        f"Median and range of {result.config.seeds} seeds, {result.config.sequences} held-out "
        f"sequences each. A head without preference has {uniform:.3f} of its attention on [SEP].",
    )
    return Section("An ordinary transformer learns it", text, [table])


def _changes(variant: "Variant") -> dict[str, Float[np.ndarray, " seed"]]:
    changes: dict[str, Callable[[Dossier], float]] = {
        "untouched": lambda one: one.effects.untouched,
        "[SEP] cut from later tokens": lambda one: one.effects.cut_catch,
        "control: another token cut": lambda one: float(np.median(one.effects.other_token)),
        "layer 1 made uniform": lambda one: one.effects.flat,
        "tag erased": lambda one: one.effects.erased,
        "control: random direction erased": lambda one: float(np.median(one.effects.other_erased)),
        "tag swapped, other target": lambda one: one.effects.swapped,
        "control: random swap": lambda one: float(np.median(one.effects.other_swapped)),
        "MLP 1 writes its mean": lambda one: one.effects.mute,
        "[SEP] sees nothing": lambda one: one.effects.blind_sep,
    }
    return {name: each(variant, change) for name, change in changes.items()}


def _breaks(result: "Result") -> Section:
    able = [v for v in result.variants if (each(v, fvu) < FOUND).any()]
    if not able:
        return Section("What breaks it", ["No seed averages: there is nothing to break."])
    changes = {variant.name: _changes(variant) for variant in able}
    names = list(next(iter(changes.values())))
    rows = [(name, *(spread(changes[variant][name]) for variant in changes)) for name in names]
    table = Table(
        ("change", *changes),
        rows,
        f"Variance unexplained, median and range of seeds; {FOUND} is where a seed counts as "
        "broken. A swap gives the tag to the numbers before [SEP] and takes it from those after "
        "it, and is held against the mean of the numbers that now have it: low means that the tag "
        "alone decides what is averaged.",
    )
    picture = Picture(
        "larger-breaking",
        larger_pictures.breaking(changes, FOUND),
        "Every seed after each change (red), beside its control (green); the dotted line is where "
        "a seed no longer averages.",
    )
    return Section("What breaks it", [], [table], [picture])


def _probes(result: "Result") -> Section:
    rows = []
    for variant in result.variants:
        seen = variant.probed
        best = [int(one.alpha[0].argmax()) for one in seen]
        pairs = list(zip(seen, best, strict=True))
        rows.append(
            (
                variant.name,
                spread(np.array([one.alpha[0, head] for one, head in pairs])),
                spread(np.array([one.other_sinks[0, head] for one, head in pairs])),
                spread(np.array([one.outlier_dims[1] for one in seen])),
                spread(np.array([float(one.massive) for one in seen])),
                spread(np.array([one.eta for one in seen])),
                f"{np.median([one.null for one in seen]):.2f}",
                spread(np.array([one.agreement for one in seen])),
            )
        )
    table = Table(
        (
            "variant",
            "sink score of [SEP], strongest head of layer 1",
            "other sinks in that head",
            "outlier dimensions after layer 1",
            "massive activations",
            "η² at [SEP]",
            "η² at random cuts",
            "tokens told by component 1",
        ),
        rows,
        "The probes of language models, unchanged, on sequences of 96 tokens with [SEP] at 33: "
        "three times as long as in training. Median and range of seeds.",
    )
    return Section("What the probes of language models see in it", [], [table])


def _looks(result: "Result") -> Section:
    from mech.probes.segments import segments

    example = result.example
    found = [segments(example.resid[depth], 2) for depth in (0, 1)]
    name = f"seed {example.seed} of “{result.variants[0].name}”"
    return Section(
        "What it looks like",
        [],
        [],
        [
            Picture(
                "larger-attention",
                larger_pictures.attention(example.pattern, example.t),
                f"Attention of {name} on one sequence.",
            ),
            Picture(
                "larger-stream",
                larger_pictures.stream(
                    [one.coordinate for one in found],
                    [one.share[:2] for one in found],
                    ["embedding", "after layer 1"],
                    example.t,
                ),
                f"The residual stream of {name}: principal components of one sequence's tokens.",
            ),
        ],
    )
