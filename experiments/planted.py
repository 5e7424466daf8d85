"""Do the probes find planted truth, all of it and nothing else? Hand-built models and toys."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments.intervals import interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import SEEDS, multiple, within

if TYPE_CHECKING:  # torch and jax are imported when the question is asked, not for --help
    from experiments.recovery import Tally
    from experiments.recovery_controls import Claims
    from experiments.recovery_tags import Effect


@dataclass(frozen=True)
class Config:
    """Plant sinks, tags and outliers by formula, and count what the probes make of them."""

    seeds: int = 24
    """Planted models, in turn of three shapes; controls and toys as many of each."""
    sequences: int = 4
    """Prompts for each."""
    trained: int = 8
    """Initialisations of the toy to train; 0 leaves it out."""
    steps: int = 4000
    """Minibatches of that training; a multiple of 40."""
    seed: int = 0
    """The first seed."""


@dataclass(frozen=True)
class Result:
    """Tallies by where the truth comes from, claims of the controls, and the reader's effects."""

    config: Config
    inputs: Inputs
    tallies: "dict[str, list[list[Tally]]]"
    claims: "list[Claims]"
    effects: "list[Effect]"


def run(config: Config, progress: Progress) -> Result:
    """Build, look, compare.

    Raises:
        BadOption: no model at all, or sizes that train nothing.
    """
    from experiments import recovery, recovery_tags, recovery_toy
    from experiments.recovery_controls import controls
    from mech.planted.build import planted
    from mech.planted.plan import Size
    from toy.recipe import Recipe

    within("seeds", config.seeds, 1, 1000)
    within("sequences", config.sequences, 2, 64)
    within("trained", config.trained, 0, 1000)
    if config.trained:
        multiple("steps", config.steps, Recipe().checkpoints)
    within("seed", config.seed, 0, SEEDS - config.seeds)
    sizes = (
        Size(),
        Size(layers=9, heads=5, kv_heads=5, d_model=75, d_head=12, seq=131),
        Size(layers=12, heads=8, kv_heads=4, d_model=128, vocabulary=101),
    )
    tallies: dict[str, list[list[Tally]]] = defaultdict(list)
    claims, effects = [], []
    with progress.task("planted models and controls", config.seeds) as advance:
        for seed in range(config.seed, config.seed + config.seeds):
            size = sizes[seed % len(sizes)]
            made = planted(seed, size, batch=config.sequences)
            seen = recovery.look(made)
            tallies[LLAMA].append(
                [*recovery.recover(made, seen), *recovery_tags.recover_tags(made, seen)]
            )
            effects += recovery_tags.effects(made, seed)
            claims += controls(seed, size)
            tallies["toy, theorem's weights"].append(recovery_toy.theorem(seed))
            for name, found in recovery_toy.routes(seed).items():
                tallies[f"larger toy, {name}"].append(found)
            advance(f"seed {seed}")
    if config.trained:
        progress.say(f"training {config.trained} initialisations of the toy")
        tallies[TRAINED] = recovery_toy.trained(config.trained, config.steps, config.seed)
    return Result(config, Inputs(dtype="float32"), dict(tallies), claims, effects)


LLAMA, TRAINED = "planted Llama", "toy, trained"


def sections(result: Result) -> list[Section]:
    """What was asked, what was found; controls; the reader."""
    return [_found(result), _controls(result.claims), _reader(result.effects)]


def _found(result: Result) -> Section:
    rows = []
    for where, models in result.tallies.items():
        for plant, each in _by_plant(models).items():
            planted, found, false = np.array([t[1:] for t in each]).sum(axis=0)
            whole = sum(t.whole for t in each)
            rows.append(
                [where, plant, f"{found:,} of {planted:,}", f"{false:,}", _share(whole, len(each))]
            )
    table = Table(
        ["truth", "plant", "found", "false", "models without a miss or a false one"],
        rows,
        "Found and false are entries (a layer, head, sequence and token; a head; a depth; a "
        "dimension). They are not independent, so the 95% interval (Wilson) is over models.",
    )
    trained = len(result.tallies.get(TRAINED, ()))
    text = [
        "Every weight of the planted Llamas is a formula (docs/planted.md), so what attention must "
        "be is known in closed form; places, blocks, heads and sizes are drawn from the seed. The "
        "toys' truth is their weights: the sink is [SEP] and the tag E_SEP W_V1."
    ]
    if result.config.trained:
        text.append(
            f"Of {result.config.trained} trained toys {trained} found the mechanism and are asked."
        )
    return Section("Planted truth", text, [table])


def _controls(claims: "list[Claims]") -> Section:
    by_name: dict[str, list[Claims]] = defaultdict(list)
    for claim in claims:
        by_name[claim.control].append(claim)
    rows, alike = [], []
    for name, each in by_name.items():
        columns = np.array([claim[2:] for claim in each])
        means = [str(interval(column)) for column in columns.T]
        clean = int((columns[:, 3] == 0).sum())
        heads = np.mean([claim.pairs for claim in each])
        rows.append([name, f"{heads:.0f}", *means[:4], _share(clean, len(each))])
        alike.append([name, *means[4:], str(len(each))])
    sinks = Table(
        ["control", "heads", "equation 1", "of these in the last 16", "guarded", "countable",
         "models without a false sink"],
        rows,
        "Sinks claimed a sequence, over all layers and heads; means over models with 95% bootstrap "
        "intervals. Guarded: the first token and the later ones that more than 16 queries see. "
        "Countable: those of them where a head without preference stays below the threshold.",
    )  # fmt: skip
    tokens = Table(
        ["control", "in the paper's span", "where the first token is raised", "models"],
        alike,
        "Tokens a sequence that are sink-like: cosine to the first token's state above 0.9. The "
        "paper's span, largest rise to largest fall of the first token's norm, exists without any "
        "sink, and one outlier feature makes all states alike. A state says nothing of attention: "
        "massive tokens that nobody looks at have their secondary sinks too.",
    )
    return Section("No sinks planted", [], [sinks, tokens])


def _reader(effects: "list[Effect]") -> Section:
    rows = []
    by_name: dict[str, list[Effect]] = defaultdict(list)
    for effect in effects:
        by_name[effect.edit].append(effect)
    for name, each in by_name.items():
        columns = np.array([effect[1:] for effect in each])
        rows.append([name, *(str(interval(column)) for column in columns.T), str(len(each))])
    table = Table(
        ["edit of the catching head", "predicted", "measured", "difference", "models"],
        rows,
        "Root mean square change of what the reading head writes over the last segment, in units "
        "of the predicted change when the tags are removed; mean over models, 95% bootstrap.",
    )
    return Section("The tag is what the reader reads", [], [table])


def _by_plant(models: "Iterable[list[Tally]]") -> "dict[str, list[Tally]]":
    found: dict[str, list[Tally]] = defaultdict(list)
    for tallies in models:
        for tally in tallies:
            found[tally.plant].append(tally)
    return found


def _share(hits: int, n: int) -> str:
    from mech.probes.specialised import wilson

    (low,), (high,) = wilson(np.array([hits]), n)
    return f"{hits} of {n} [{100 * low:.0f}%, {100 * high:.0f}%]"
