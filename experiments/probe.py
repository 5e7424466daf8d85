"""Where are a model's attention sinks, outliers and segments?

Sinks are counted on text, by equation 1 of the papers (Gu et al. 2025, arXiv:2410.10781); the
pictures are of one prompt. A prompt shorter than 64 tokens is never counted on, because uniform
attention alone passes the threshold there.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.caught import Prompted, Tagged
from experiments.intervals import Interval
from experiments.probing import counted, prompted, streams
from experiments.probing.prompts import FIRST, chosen
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.ranks import together
from experiments.report import Page, Section
from experiments.settings import Reading, Sizes, between

if TYPE_CHECKING:  # torch and transformers are imported when a question is asked, not for --help
    from torch import Tensor

    from bridge.ranks import TorchRanks
    from experiments.measure import Material
    from experiments.probing.release import Released
    from experiments.probing.survey import Survey
    from mech.load import Loaded
    from mech.probes.massive import Peak

LOOKED = 4
"""Sequences whose streams are kept whole."""


@dataclass(frozen=True)
class Config:
    """Probe a model on a text and on one prompt."""

    reading: Reading = field(default_factory=Reading)
    prompt: str = FIRST
    """The text to picture, or the name of one of ours: laugh, zero-shot, worked, nli, four-shot."""
    prompt_file: Path | None = None
    """Picture the text of this file instead."""
    sequences: int = 20
    """Sequences of the text to count sinks on."""
    seq: int = 128
    """Tokens of such a sequence, at least 64."""
    epsilon: float = 0.1
    """A key is a sink when it receives more than this share of attention on average."""
    ranks: int = 1
    """Processes that share the sequences sinks are counted on (docs/ranks.md)."""


@dataclass(frozen=True)
class Result:
    """Counts are a sequence's, with intervals over sequences; grids are over (layer, head).

    survey, released: None where not the whole was asked for; refused says why a part that was
    asked for is missing.
    """

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
    prompt: Prompted
    tagged: Tagged | None
    whole: bool = False
    survey: "Survey | None" = None
    released: "Released | None" = None
    refused: tuple[str, ...] = ()
    page: Page | None = field(default=None, metadata={"stored": False})  # a file of its own


def run(config: Config, progress: Progress) -> Result:
    """Load, count on the text, survey every kind of sink, follow the tags, look at the prompt."""
    from experiments import catching, measure
    from experiments.ranks import agreed

    between("epsilon", config.epsilon, 0, 1)
    text = chosen(config.prompt, config.prompt_file)
    sizes = Sizes(1, 2, config.seq, config.sequences, config.seq)
    device = config.reading.device
    with together.ranks(__name__, config, config.ranks, progress, device) as ranks:
        reading = replace(config.reading, device=together.place(device))
        loaded = measure.loaded_model(reading, progress)
        catching.encoded(loaded, text, config.reading.bos)  # refused before the text is read
        material = measure.material(loaded, reading, sizes, progress)
        if ranks is not None:
            agreed.check(ranks, config, loaded, material)
        # What is no sum over sequences is for rank 0 alone.
        whole = ranks is None or ranks.rank == 0
        return answer(config, loaded, material, progress, whole=whole, ranks=ranks)


def answer(
    config: Config,
    loaded: "Loaded",
    material: "Material",
    progress: Progress,
    *,
    whole: bool = False,
    ranks: "TorchRanks | None" = None,
) -> Result:
    """The probes of a model that is loaded already: the summary, or the whole of it."""
    from experiments import catching, measure
    from mech.probes import sinks

    text = chosen(config.prompt, config.prompt_file)
    encoded = catching.encoded(loaded, text, config.reading.bos)
    groups = len(material.sequences.split(measure.AT_ONCE))
    with progress.task("probe", groups + 2) as advance:
        prompt = catching.look(loaded, encoded, config.epsilon)
        scores = measure.sink_scores(loaded.model, material.sequences, advance, ranks)
        if ranks is not None:
            together.tell(ranks, progress)
        advance("page")
        page, *refused = _page(config, loaded, encoded.ids)
        advance("stream")
        peak, features = _outliers(loaded, material)
        tagged = None
        if not whole:  # what `released` asks of several heads, of one
            tagged = catching.tagged(loaded.model, material.sequences, scores, config.epsilon)
    grid = sinks.count_sinks(scores, epsilon=config.epsilon)
    totals = measure.counts(scores, config.epsilon)
    found = Result(
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
        refused=tuple(refused),
        page=page,
    )
    return _whole(found, loaded, material, scores, progress) if whole else found


def _whole(
    found: Result,
    loaded: "Loaded",
    material: "Material",
    scores: np.ndarray,
    progress: Progress,
) -> Result:
    """With every kind of sink and outlier, and what becomes of the tags."""
    from experiments.measure import AT_ONCE
    from experiments.probing.released import look
    from experiments.probing.survey import survey
    from mech.errors import BadInput

    model, ids, epsilon = loaded.model, material.sequences, found.config.epsilon
    every, tags, refused = None, None, [*found.refused]
    with progress.task("survey", len(ids.split(AT_ONCE))) as advance:
        try:
            every = survey(model, ids, epsilon=epsilon, advance=advance)
        except BadInput as error:  # too few layers for a span
            refused.append(f"Not every kind of sink was sought: {error}.")
    with progress.task("tags", len(ids[1::2].split(AT_ONCE))) as advance:
        try:
            tags = look(model, ids, scores, epsilon, advance).released
        except BadInput as error:  # a family whose output matrix cannot be told apart by heads
            refused.append(f"Tags were not measured: {error}.")
    return replace(found, whole=True, survey=every, released=tags, refused=tuple(refused))


def _page(config: Config, loaded: "Loaded", ids: "Tensor") -> tuple[Page | None, *tuple[str, ...]]:
    """The prompt as an interactive page; without one, why: a prompt may be too long for it."""
    from experiments.probing import page
    from mech.errors import BadInput

    note = "One prompt is an illustration; what holds on text is counted in report.html."
    try:
        seen = page.measure(loaded, ids, config.epsilon, note)
    except BadInput as error:
        return None, f"There is no interactive page of this prompt: {error}."
    caption = "every head and layer of this prompt to click through, in any browser."
    return (Page("prompt.html", page.page(seen), caption),)


def _outliers(loaded: "Loaded", material: "Material") -> tuple["Peak", dict[int, int]]:
    """Peaks by depth, and for each outlier feature the number of depths that have it."""
    from mech.capture import capture_blocks
    from mech.probes import massive, outliers

    ids = material.sequences[:LOOKED]
    blocks = capture_blocks(loaded.model, ids, lambda block: (block.resid_pre, block.resid_post))
    resid = np.stack([blocks[0][0], *(post for _, post in blocks)])
    ordinary = np.logical_not(massive.is_massive(resid, ratio=streams.ORDINARY).any(axis=-1))
    depths = outliers.outlier_dims(resid, ordinary).sum(axis=0)
    features = {int(dim): int(depths[dim]) for dim in np.flatnonzero(depths)}
    return massive.peaks(resid), features


def sections(result: Result) -> list[Section]:
    """Sinks on the text, every kind of them, tags by depth, and the prompt in pictures."""
    return [*_on_text(result), *_tags(result), _on_prompt(result)]


def _on_text(result: Result) -> list[Section]:
    config = result.config
    counts = counted.section(
        result.first,
        result.later,
        result.raw,
        result.first_grid,
        result.later_grid,
        epsilon=config.epsilon,
        seq=config.seq,
        text=result.inputs.text or "the text",
    )
    peaks = streams.section(
        result.peak_ratio,
        result.peak_token,
        result.peak_dim,
        result.features,
        min(LOOKED, result.first.n),
    )
    if result.survey is None:
        return [counts, peaks]
    from experiments.probing.survey_sections import sections as surveyed

    return [counts, *surveyed(result.survey), peaks]


def _tags(result: Result) -> list[Section]:
    if result.released is None:
        return []
    from experiments.probing import survived

    return [survived.section(result.released)]


def _on_prompt(result: Result) -> Section:
    pages = [] if result.page is None else [result.page]
    found = prompted.section(result.prompt, result.heads, result.config.epsilon)
    told = [] if result.whole else [prompted.on_text(result.tagged)]
    return replace(found, text=[*found.text, *told, *result.refused], pages=pages)
