"""Does an ordinary transformer learn catch, tag, release, and what else could it do?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments import larger_sections
from experiments.larger_probes import Probed, probe
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section
from experiments.settings import SEEDS, multiple, within

if TYPE_CHECKING:  # jax is imported when the question is asked, not for --help
    from toy.larger.route import Dossier
    from toy.larger.shape import Shape
    from toy.larger.train import History, Recipe, Trained
    from toy.tasks import Batch

CHECKPOINTS = 20
PROBED, PLACE, READ = 96, 33, 8  # tokens of a probed sequence, where [SEP] stands, sequences


@dataclass(frozen=True)
class Config:
    """Train an ordinary transformer to average, take it apart, and name its route."""

    d_model: int = 16
    """Width of the residual stream."""
    heads: int = 2
    """Attention heads of a block."""
    layers: int = 2
    """Blocks."""
    norm: bool = True
    """LayerNorm before every attention, MLP and the read-out."""
    mlp: bool = True
    """An MLP of width 4 d_model in every block."""
    ablations: bool = True
    """Also train without norm, without MLP, and with one layer, which cannot do it."""
    seeds: int = 8
    """Initialisations of each."""
    steps: int = 1000
    """Minibatches; a multiple of 20."""
    batch: int = 32
    """Sequences of a minibatch."""
    learning_rate: float | None = None
    """AdamW's step size; default: 0.04 / sqrt(d_model)."""
    weight_decay: float = 0.0
    """AdamW's decay, which is what could make weights of low rank."""
    sequences: int = 512
    """Held-out sequences to judge on."""
    seed: int = 0
    """What all randomness is derived from."""


class Variant(NamedTuple):
    """One shape: how it trained, what each seed does, and what the probes read."""

    name: str
    shape: "Shape"
    history: "History"
    dossiers: "list[Dossier]"
    probed: list[Probed]


class Example(NamedTuple):
    """The best seed of the first variant on one sequence, for pictures."""

    seed: int
    t: int
    pattern: Float[np.ndarray, "layer head query key"]
    resid: Float[np.ndarray, "depth seq d_model"]


@dataclass(frozen=True)
class Result:
    """Every variant beside what no order-blind model can beat."""

    config: Config
    inputs: Inputs
    recipe: "Recipe"
    blind_fvu: float
    target_variance: float
    variants: list[Variant]
    example: Example


def run(config: Config, progress: Progress) -> Result:
    """Train, measure, break, probe.

    Raises:
        BadOption: see `check`.
        Refused: sizes that make no transformer.
    """
    import dataclasses

    from toy.larger.blind import blind_fvu
    from toy.larger.route import held_out, study_all
    from toy.larger.train import train

    check(config)
    recipe = as_recipe(config)
    variants, example = [], None
    for name, shape in _shapes(config, recipe.shape).items():
        with progress.task(f"{name}: train {config.seeds} seeds", CHECKPOINTS) as advance:
            trained = train(
                dataclasses.replace(recipe, shape=shape),
                advance=lambda step, advance=advance: advance(f"step {step}"),
            )
        with progress.task(f"{name}: take seeds apart", config.seeds) as advance:
            dossiers = study_all(trained, sequences=config.sequences, advance=advance)
        probed = [_probe(trained, seed) for seed in range(config.seeds)]
        variants.append(Variant(name, shape, trained.history, dossiers, probed))
        example = _example(trained, variants[-1]) if example is None else example
    assert example is not None
    variance = float(np.asarray(held_out(recipe, config.sequences).target).var())
    return Result(
        config,
        Inputs(dtype="float32"),
        recipe,
        blind_fvu(recipe.shortest, recipe.longest),
        variance,
        variants,
        example,
    )


def check(config: Config) -> None:
    """Refuse sizes that train nothing, before any work is done for them.

    Raises:
        BadOption: one of them.
    """
    within("d-model", config.d_model, 4, 512)
    within("heads", config.heads, 1, config.d_model // 2)
    within("layers", config.layers, 2, 12)
    within("seeds", config.seeds, 1, 1000)
    multiple("steps", config.steps, CHECKPOINTS)
    within("batch", config.batch, 1, 10_000)
    if config.learning_rate is not None:
        within("learning-rate", config.learning_rate, 1e-8, 1.0)
    within("weight-decay", config.weight_decay, 0.0, 10.0)
    within("sequences", config.sequences, 64, 100_000)
    within("seed", config.seed, 0, SEEDS)


def as_recipe(config: Config) -> "Recipe":
    """The training that these options ask for."""
    from toy.larger.shape import Shape
    from toy.larger.train import Recipe

    rate = config.learning_rate
    return Recipe(
        shape=Shape(
            config.d_model,
            config.heads,
            config.layers,
            4 * config.d_model,
            norm=config.norm,
            mlp=config.mlp,
        ),
        learning_rate=0.04 / config.d_model**0.5 if rate is None else rate,
        weight_decay=config.weight_decay,
        steps=config.steps,
        batch=config.batch,
        seeds=config.seeds,
        seed=config.seed,
        checkpoints=CHECKPOINTS,
    )


def _shapes(config: Config, shape: "Shape") -> "dict[str, Shape]":
    """The shape itself, and what is left of it when one part is taken away."""
    from dataclasses import replace

    found = {"as given": shape}
    if config.ablations and shape.norm:
        found["no norm"] = replace(shape, norm=False)
    if config.ablations and shape.mlp:
        found["no MLP"] = replace(shape, mlp=False)
    if config.ablations:
        found["one layer"] = replace(shape, layers=1)
    return found


def _probe(trained: "Trained", seed: int) -> Probed:
    """Longer sequences than were trained on, for the count of sinks needs 64 tokens."""
    from mech.trace import Trace
    from toy.larger.observe import forward
    from toy.larger.route import seed_of

    weights = seed_of(trained.weights, seed)
    _, left = forward(
        trained.recipe.shape, weights, probing_batch(trained.recipe.seed, PROBED, PLACE)
    )
    return probe(Trace(*left), PLACE)


def probing_batch(seed: int, tokens: int, t: int) -> "Batch":
    """Sequences of one length with [SEP] at t, counted from 1, to run the probes on."""
    import jax.numpy as jnp

    from toy.tasks import Batch, mean_after

    x = np.random.default_rng(seed).standard_normal((READ, tokens)).astype(np.float32)
    x[:, t - 1] = 0
    numbers, at, last = jnp.asarray(x), jnp.full(READ, t), jnp.full(READ, tokens)
    return Batch(numbers, at, last, mean_after(numbers, at, last))


def _example(trained: "Trained", variant: Variant) -> Example:
    from toy.larger.observe import forward
    from toy.larger.route import seed_of

    best = int(np.argmin([one.seen.fvu for one in variant.dossiers]))
    longest = trained.recipe.longest
    t = longest // 2
    batch = probing_batch(trained.recipe.seed, longest, t)
    _, left = forward(trained.recipe.shape, seed_of(trained.weights, best), batch)
    return Example(best, t, left.pattern[:, 0], left.resid[:, 0])


def sections(result: Result) -> list[Section]:
    """The table of variants, the causal tests, ranks, probes, and three pictures."""
    return larger_sections.sections(result)
