"""One prompt in pictures: what its sinks catch, in maps, colours, stems and levels."""

from collections.abc import Iterator

import numpy as np

from experiments import pictures
from experiments.caught import DRAWS, Caught, Colouring, Prompted, Tagged, tail
from experiments.probing.cells import NONE
from experiments.probing.figures.coloured import Coloured, coloured_text
from experiments.probing.figures.labels import label
from experiments.probing.figures.maps import Map, attention_maps
from experiments.probing.figures.stems import FACTOR, outliers, stems
from experiments.probing.figures.timelines import timelines
from experiments.report import Picture, Section, Table

WORDS = 400
"""Tokens of the coloured text in the picture; a longer prompt's end stands in the page alone."""
NAMED = 8
"""Sinks that a sentence names."""


def section(prompt: Prompted, heads: int, epsilon: float) -> Section:
    """Everything that is drawn of the prompt; its head was chosen among `heads` of the model."""
    title, seen = "Do tokens cluster by the sink that caught them?", prompt.caught
    drawn = [*drawings(prompt, epsilon)]
    if seen is None:
        nothing = (
            f"On this prompt the first token is a sink of no head at {epsilon}: "
            "there is nothing to colour."
        )
        return Section(title, [nothing], pictures=drawn)
    chosen = (
        f"Block {seen.layer}, head {seen.head} has the clearest sinks on this prompt: "
        f"{named(prompt.tokens, seen)}. Tokens are coloured by their first three principal "
        "components as red, green and blue; sinks are framed. "
        f"One prompt of {len(prompt.tokens)} tokens (BOS: {prompt.bos}) is an illustration and no "
        f"evidence; the head was chosen by its sinks among {heads}, not by its colours."
    )
    html = "".join(
        pictures.coloured_tokens(c.what, prompt.tokens, c.rgb, seen.sinks) for c in _all(seen)
    )
    return Section(title, [chosen, reading(seen)], [_table(seen)], drawn, html)


def _all(seen: Caught) -> list[Colouring]:
    control = [] if seen.control is None else [seen.control.colouring]
    return [*seen.colourings, *control]


def _table(seen: Caught) -> Table:
    rows = [
        (c.what, f"{c.share.sum():.0%}", _two(c.eta2), _two(c.null[0]), _two(c.null[1]))
        for c in _all(seen)
    ]
    return Table(
        ("coloured array", "in the colours", "η² of the sinks", "null median", "null 95%"),
        rows,
        "In the colours: share of the variance that the three components show. η²: share of the "
        f"variance between groups of tokens with the same sink. Null: the same for {DRAWS:,} "
        "random cuts into as many contiguous segments; neighbours are alike anyway.",
    )


def _two(value: float) -> str:
    return NONE if np.isnan(value) else f"{value:.2f}"


def named(tokens: list[str], seen: Caught) -> str:
    """The sinks of the pictured head, each with its place; of many the first ones."""
    told = ", ".join(f"“{label(tokens[i])}” ({i})" for i in seen.sinks[:NAMED])
    more = len(seen.sinks) - NAMED
    return f"{told} and {more} more" if more > 0 else told


def drawings(prompt: Prompted, epsilon: float, prefix: str = "") -> Iterator[Picture]:
    """Every picture of one prompt; `prefix` tells several prompts' files apart."""
    if prompt.caught is not None:
        for picture in (
            _maps(prompt, prompt.caught),
            _colours(prompt, prompt.caught),
            _stems(prompt.caught),
        ):
            yield picture._replace(name=prefix + picture.name)
    yield _levels(prompt, epsilon)._replace(name=f"{prefix}sink-levels")


def _levels(prompt: Prompted, epsilon: float) -> Picture:
    n = len(prompt.tokens)
    caption = (
        f"From where to where a token is a sink: {len(prompt.rows.sinks)} tokens that receive "
        f"more than {epsilon} of some head's attention, those of most heads, and as control "
        f"{len(prompt.rows.others)} others of the {n}, drawn at random; the last {tail(n)} tokens "
        "are left out. Dots: the cosine is beyond 0.9 while the first token's norm is above three "
        "medians, the rule of secondary sinks; the first is where one is made, the last where it "
        "ends."
    )
    return Picture("sink-levels", timelines(prompt.tokens, prompt.levels, prompt.rows), caption)


def _maps(prompt: Prompted, seen: Caught) -> Picture:
    maps = [Map(f"block {seen.layer}, head {seen.head}", seen.pattern)]
    caption = f"Attention of the pictured head on {len(prompt.tokens)} tokens; its sinks are red."
    if seen.control is not None:
        head = seen.control.head
        maps.append(Map(f"control: block {seen.layer}, head {head}", seen.control.pattern))
        caption += f" Beside it head {head}, which rests least on them in the same block."
    if len(seen.pattern) < len(prompt.tokens):
        caption += " Each point is the largest entry of a tile of neighbouring tokens."
    return Picture("attention-map", attention_maps(prompt.tokens, maps, seen.sinks), caption)


def _colours(prompt: Prompted, seen: Caught) -> Picture:
    panels = [
        Coloured(f"{c.what} (η² {c.eta2:.2f}; null {c.null[0]:.2f}, 95% {c.null[1]:.2f})", c.rgb)
        for c in _all(seen)
    ]
    n = len(prompt.tokens)
    shown = prompt.tokens[:WORDS]
    caption = (
        f"The {'first ' if n > WORDS else ''}{len(shown)} tokens{f' of {n}' if n > WORDS else ''} "
        "on the colours of their first three principal components; the colours always fill the "
        "range, so that only where they change says something. Sinks are framed, the first token "
        "is grey."
    )
    return Picture("coloured-text", coloured_text(shown, panels, seen.sinks), caption)


def _stems(seen: Caught) -> Picture:
    left = sum(len(outliers(row.size)) for row in seen.stems)
    right = sum(len(outliers(row.rotated)) for row in seen.stems)
    caption = (
        "Size of each dimension in medians of its token, mean over the tokens of a panel; above "
        f"{FACTOR:.0f} (dotted) a dimension is named, at most five a panel. Left {left} names, "
        f"right {right}: the same vectors in rotated axes, which keeps all lengths and angles."
    )
    return Picture("outlier-stems", stems(seen.stems), caption)


def reading(seen: Caught) -> str:
    """The sentence that the numbers allow."""
    reads, writes, released = seen.colourings
    if np.isnan(writes.eta2):
        return "The head writes the same for every token: there is nothing to group."
    above = [c.eta2 > c.null[1] for c in (reads, writes, released)]
    tag = "groups its tokens by sink beyond chance" if above[1] else "does not beat chance"
    after = "still visible" if above[2] else "not visible"
    before = "already there" if above[0] else "not there"
    return (
        f"The head's output {tag} (η² {writes.eta2:.2f} against {writes.null[1]:.2f}); in the "
        f"stream it reads the grouping is {before}, and in the stream above it is {after} "
        f"(η² {released.eta2:.2f} against {released.null[1]:.2f})."
    )


def on_text(tagged: Tagged | None) -> str:
    """The same question where it counts: on text that did not choose the head."""
    if tagged is None:
        return (
            "On the text, the head that rests most on later sinks in half of the sequences has two "
            "sinks in fewer than six of the others: too few to ask the same of it."
        )
    reads, writes, released = (
        f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]" for found in tagged.above_null
    )
    return (
        f"On text, head {tagged.head} of block {tagged.layer} is the one that rests most on later "
        f"sinks in half of the sequences. In {tagged.above_null[0].n} sequences of the other half, "
        f"η² above the null's median is {reads} in what it reads, {writes} in what it writes, and "
        f"{released} in the stream up to three blocks later (mean and 95% interval over these): "
        f"{_verdict(tagged)}."
    )


def _verdict(tagged: Tagged) -> str:
    """Tag and release, each as it came out."""
    _, writes, released = tagged.above_null
    tag = "the tag is there" if writes.low > 0 else "the tag is not shown"
    release = "it is released" if released.low > 0 else "its release is not seen"
    return f"{tag}, {release}"
