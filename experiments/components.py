"""What do whole heads lose? A3's closed forms and the pruning of sink heads, beside controls.

A3 narrows heads and MLP in the metric of their inputs; the same selection by weights alone, by
chance, and a plain low-rank term in every matrix spend as much. Sink heads whose queries and keys
read k channels are set beside heads that read k others.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from experiments.intervals import Interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.recalls import Recalls
from experiments.report import Section
from experiments.settings import SEEDS, Reading, Sizes, between, some, within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.component_scores import LayerErrors

Question = Literal["scores", "a3", "sinks"]


@dataclass(frozen=True)
class Config:
    """Narrow whole heads and MLPs, prune sink heads, and measure what is left."""

    reading: Reading = field(default_factory=Reading)
    questions: tuple[Question, ...] = ("scores", "a3", "sinks")
    """scores: how far attention scores move. a3: perplexity and sinks under A3 and its controls.
    sinks: sink heads by few columns."""
    score_compression: float = 0.5
    """Share of a head's coordinates that is removed where scores are compared."""
    compressions: tuple[float, ...] = (0.1, 0.2)
    """Share of the weights that is removed where perplexity is."""
    columns: tuple[int, ...] = (10, 100)
    """Channels that queries and keys of sink heads are left with."""
    epsilon: float = 0.3
    """A sink head is one whose alpha at the first token passes this in 90% of the calibration
    windows."""
    sizes: Sizes = field(default_factory=lambda: Sizes(8, 10, 256, 10, 128))
    seed: int = 0
    """Of the random controls."""


class Left(NamedTuple):
    """What a compression left of the model; nll and accuracy paired with the dense model.

    density: of the weights it replaced. whole: of all weights in the blocks.
    """

    density: float
    whole: float
    ppl: float
    nll: Interval
    accuracy: Interval
    recalls: Recalls


class SinkHeadCount(NamedTuple):
    """How many heads were chosen, and how many key heads have all of their query heads chosen."""

    query: int
    key: int
    queries: int
    keys: int


@dataclass(frozen=True)
class Result:
    """`errors` by layer; `found` by name, the dense model first."""

    config: Config
    inputs: Inputs
    accuracy: float
    errors: "list[LayerErrors]"
    found: dict[str, Left]
    chosen: SinkHeadCount | None


def run(config: Config, progress: Progress) -> Result:
    """Load, compare scores with the model dense, then compress it each way in turn."""
    from experiments import component_variants, measure
    from experiments.component_scores import layer_errors

    some("questions", config.questions)
    between("score-compression", config.score_compression, 0, 1)
    for compression in config.compressions:
        between("compressions", compression, 0, 1)
    for columns in config.columns:
        within("columns", columns, 1)
    between("epsilon", config.epsilon, 0, 1)
    within("seed", config.seed, 0, SEEDS)
    loaded = measure.loaded_model(config.reading, progress)
    material = measure.material(loaded, config.reading, config.sizes, progress)
    errors = []
    if "scores" in config.questions:
        with progress.task("attention scores", 2) as advance:
            errors = layer_errors(
                loaded.model,
                material.calibration,
                material.evaluation,
                compression=config.score_compression,
                seed=config.seed,
                advance=advance,
            )
    answer = component_variants.measured(config, loaded.model, material, progress)
    return Result(config, material.inputs, answer.accuracy, errors, answer.found, answer.chosen)


def sections(result: Result) -> list[Section]:
    """A section a question, each with its verdict, control and interval."""
    from experiments import component_sections

    return component_sections.sections(result)
