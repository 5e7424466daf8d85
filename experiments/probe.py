"""Where are a model's attention sinks, outliers and segments?

Sinks are counted on text, by equation 1 of the papers (Gu et al. 2025, arXiv:2410.10781); the
pictures are of one prompt. A prompt shorter than 64 tokens is never counted on, because uniform
attention alone passes the threshold there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from experiments import pictures
from experiments.caught import DRAWS, Prompted, Tagged
from experiments.intervals import Interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Picture, Section, Table
from experiments.settings import Reading, Sizes, between

if TYPE_CHECKING:  # torch and transformers are imported when a question is asked, not for --help
    from experiments.measure import Material
    from mech.load import Loaded
    from mech.probes.massive import Peak

LAUGH = (
    "I laughed with friends until my stomach hurt. I wiped away tears of sadness and said nothing. "
    "I slammed my fist in anger on the table."
)


LOOKED = 4
"""Sequences whose streams are kept whole."""
BUSIEST = 8
"""Layers to name."""
ORDINARY = 100.0
"""Tokens with an activation this many times the median are left out when features are sought."""


@dataclass(frozen=True)
class Config:
    """Probe a model on a text and on one prompt."""

    reading: Reading = field(default_factory=Reading)
    prompt: str = LAUGH
    """The sentence to picture."""
    sequences: int = 20
    """Sequences of the text to count sinks on."""
    seq: int = 128
    """Tokens of such a sequence, at least 64."""
    epsilon: float = 0.1
    """A key is a sink when it receives more than this share of attention on average."""


@dataclass(frozen=True)
class Result:
    """Counts are a sequence's, with intervals over sequences; grids are over (layer, head)."""

    config: Config
    inputs: Inputs
    heads: int
    first: Interval
    later: Interval
    raw: Interval
    first_grid: np.ndarray
    later_grid: np.ndarray
    peak_ratio: np.ndarray
    peak_token: np.ndarray
    peak_dim: np.ndarray
    features: dict[int, int]
    prompt: Prompted | None
    tagged: Tagged | None


def run(config: Config, progress: Progress) -> Result:
    """Load, count on the text, look at the prompt."""
    from experiments import measure

    between("epsilon", config.epsilon, 0, 1)
    sizes = Sizes(1, 2, config.seq, config.sequences, config.seq)
    loaded = measure.loaded_model(config.reading, progress)
    material = measure.material(loaded, config.reading, sizes, progress)
    return answer(config, loaded, material, progress)


def answer(config: Config, loaded: "Loaded", material: "Material", progress: Progress) -> Result:
    """The probes of a model that is loaded already."""
    from experiments import catching, measure
    from mech.probes import sinks

    groups = len(material.sequences.split(measure.AT_ONCE))
    with progress.task("probe", groups + 1) as advance:
        prompt = catching.look(loaded, config.prompt, config.reading.bos, config.epsilon)
        scores = measure.sink_scores(loaded.model, material.sequences, advance)
        advance("stream")
        peak, features = _outliers(loaded, material)
        tagged = catching.tagged(loaded.model, material.sequences, scores, config.epsilon)
    grid = sinks.count_sinks(scores, epsilon=config.epsilon)
    totals = measure.counts(scores, config.epsilon)
    return Result(
        config=config,
        inputs=material.inputs,
        heads=grid.first.size,
        first=totals.first,
        later=totals.later,
        raw=totals.raw,
        first_grid=grid.first,
        later_grid=grid.later,
        peak_ratio=peak.ratio,
        peak_token=peak.token,
        peak_dim=peak.dim,
        features=features,
        prompt=prompt,
        tagged=tagged,
    )


def _outliers(loaded: "Loaded", material: "Material") -> tuple["Peak", dict[int, int]]:
    """Peaks by depth, and for each outlier feature the number of depths that have it."""
    from mech.capture import capture_blocks
    from mech.probes import massive, outliers

    ids = material.sequences[:LOOKED]
    streams = capture_blocks(loaded.model, ids, lambda block: (block.resid_pre, block.resid_post))
    resid = np.stack([streams[0][0], *(post for _, post in streams)])
    ordinary = np.logical_not(massive.is_massive(resid, ratio=ORDINARY).any(axis=-1))
    depths = outliers.outlier_dims(resid, ordinary).sum(axis=0)
    features = {int(dim): int(depths[dim]) for dim in np.flatnonzero(depths)}
    return massive.peaks(resid), features


def sections(result: Result) -> list[Section]:
    """Sinks on the text, outliers, and the prompt in colour."""
    return [_counted(result), _streams(result), _pictured(result)]


def _counted(result: Result) -> Section:
    n, seq = result.first.n, result.config.seq
    table = Table(
        ("sinks a sequence", "mean", "95% interval"),
        [
            (
                "first token",
                f"{result.first.mean:.1f} of {result.heads} heads",
                _span(result.first),
            ),
            ("later tokens, guarded", f"{result.later.mean:.1f}", _span(result.later)),
            ("all, as the papers count", f"{result.raw.mean:.1f}", _span(result.raw)),
        ],
        f"Keys that receive more than {result.config.epsilon} of the attention on average "
        f"(equation 1), every query head of every layer, n = {n} sequences of {seq} tokens of "
        f"{result.inputs.text}. Guarded: the last 16 tokens are left out, where any head that "
        "looks at its neighbours passes the threshold.",
    )
    text = [*_in_words(result)]
    picture = Picture(
        "sink-grid",
        pictures.sink_grid(result.first_grid, result.later_grid),
        f"Sinks by layer and head, n = {n} sequences of {seq} tokens.",
    )
    return Section("Attention sinks in a real language model", text, [table], [picture])


def _in_words(result: Result) -> Iterator[str]:
    """The counts as sentences; a model may have no sinks at all."""
    if result.raw.mean == 0:
        yield f"No token of any head receives more than {result.config.epsilon} of the attention."
        return
    artefact = 1 - (result.first.mean + result.later.mean) / result.raw.mean
    yield (
        f"The first token is a sink in {result.first.mean / result.heads:.0%} of the heads. "
        f"{artefact:.0%} of what equation 1 counts lies in the last 16 tokens of the sequence "
        "and says nothing about sinks."
    )
    by_layer = result.later_grid.sum(axis=1)
    if by_layer.sum() > 0:
        busiest = np.sort(np.argsort(by_layer)[::-1][:BUSIEST])
        share = by_layer[busiest].sum() / by_layer.sum()
        yield (
            f"The {len(busiest)} layers with most later sinks, "
            f"{', '.join(map(str, busiest.tolist()))}, hold {share:.0%} of them."
        )


def _span(found: Interval) -> str:
    return f"{found.low:.1f} to {found.high:.1f}"


def _streams(result: Result) -> Section:
    top = int(np.argmax(result.peak_ratio))
    where = f"token {result.peak_token[top]}, dimension {result.peak_dim[top]}"
    often = sorted(result.features.items(), key=lambda item: -item[1])[:6]
    listed = (
        ", ".join(f"{dim} (at {count} of {len(result.peak_ratio)} depths)" for dim, count in often)
        or "none"
    )
    text = [
        f"The largest activation is {result.peak_ratio[top]:,.0f} times its state's median, after "
        f"{top} blocks, at {where}. Outlier features, dimensions above six times the token's "
        "median at 95% of the ordinary tokens (those without an activation above 100 and above "
        f"{ORDINARY:.0f} times the median): {listed}.",
    ]
    picture = Picture(
        "outliers",
        pictures.depth_profile(result.peak_ratio),
        "Largest over median magnitude of the residual stream by depth, largest of "
        f"{min(LOOKED, result.first.n)} sequences.",
    )
    return Section("Outliers and massive activations", text, pictures=[picture])


def _pictured(result: Result) -> Section:
    title, prompt = "Do tokens cluster by the sink that caught them?", result.prompt
    if prompt is None:
        text = [
            f"On this prompt the first token is a sink of no head at {result.config.epsilon}: "
            "there is nothing to colour.",
            _on_text(result.tagged),
        ]
        return Section(title, text)
    names = ", ".join(
        f"“{pictures.readable(prompt.tokens[i]).strip() or '␣'}” ({i})" for i in prompt.sinks
    )
    rows = [
        (c.what, f"{c.share.sum():.0%}", f"{c.eta2:.2f}", f"{c.null[0]:.2f}", f"{c.null[1]:.2f}")
        for c in prompt.colourings
    ]
    table = Table(
        ("coloured array", "in the colours", "η² of the sinks", "null median", "null 95%"),
        rows,
        "In the colours: share of the variance that the three components show. η²: share of the "
        f"variance between groups of tokens with the same sink. Null: the same for {DRAWS:,} "
        "random cuts into as many contiguous segments; neighbours are alike anyway.",
    )
    text = [
        f"Block {prompt.layer}, head {prompt.head} has the clearest sinks on this prompt: {names}. "
        "Tokens are coloured by their first three principal components as red, green and blue; "
        "sinks are framed. "
        f"One prompt of {len(prompt.tokens)} tokens is an illustration and no evidence; the head "
        f"was chosen by its sinks among {result.heads}, not by its colours.",
        _reading(prompt),
        _on_text(result.tagged),
    ]
    html = "".join(
        pictures.coloured_tokens(c.what, prompt.tokens, c.rgb, prompt.sinks)
        for c in prompt.colourings
    )
    picture = Picture(
        "attention-map",
        pictures.attention_map(
            prompt.tokens,
            prompt.pattern,
            prompt.sinks,
            f"block {prompt.layer}, head {prompt.head}",
        ),
        "Attention of the pictured head; the tokens it rests on are red.",
    )
    return Section(title, text, [table], [picture], html)


def _reading(prompt: Prompted) -> str:
    """The sentence that the numbers allow."""
    reads, writes, released = prompt.colourings
    above = [c.eta2 > c.null[1] for c in (reads, writes, released)]
    tag = "groups its tokens by sink beyond chance" if above[1] else "does not beat chance"
    after = "still visible" if above[2] else "not visible"
    before = "already there" if above[0] else "not there"
    return (
        f"The head's output {tag} (η² {writes.eta2:.2f} against {writes.null[1]:.2f}); in the "
        f"stream it reads the grouping is {before}, and in the stream above it is {after} "
        f"(η² {released.eta2:.2f} against {released.null[1]:.2f})."
    )


def _on_text(tagged: Tagged | None) -> str:
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
