"""What does a compression method do to a model: its losses, its sinks, its weights?"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from experiments import blockwise, effects, saving
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.ranks import together
from experiments.report import Section
from experiments.settings import BadOption, Budget, Reading, Sizes

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from bridge.compression import Compression
    from bridge.method import AnyMethod
    from bridge.ranks import TorchRanks
    from experiments.measure import Effect, Material
    from mech.load import Loaded


@dataclass(frozen=True)
class Config:
    """Compress every linear of every block, and measure before and after."""

    reading: Reading = field(default_factory=Reading)
    method: str = "oats"
    """magnitude, wanda, sparsegpt, oats, oats-moment, sparse-only, low-rank, low-rank-scaled,
    low-rank-moment, rounding, gptq, zeroquant-v2, lqer, qera-approximate, qera, loftq, a3,
    sink-heads, protected, protected-wanda."""
    budget: Budget = field(default_factory=Budget)
    select: str = "*"
    """Which linears, as a glob over names like layers.3.self_attn.q_proj."""
    sizes: Sizes = field(default_factory=Sizes)
    target: saving.Target = field(default_factory=saving.Target)
    ranks: int = 1
    """Processes that share the work: calibration text, linears, evaluation (docs/ranks.md)."""


class Weights(NamedTuple):
    """Exact accounts of what was kept and how far the weights moved.

    comparable: whether delta_w and error say something of every matrix; not where one is in
    other coordinates, as A3 leaves heads.
    """

    method: str
    linears: int
    parameters: int
    kept: int
    bits: int
    delta_w: float
    error: float
    seconds: float
    comparable: bool = True


@dataclass(frozen=True)
class Result:
    """The dense model, the compressed one, and the weights between."""

    config: Config
    inputs: Inputs
    heads: int
    dense: "Effect"
    effect: "Effect"
    weights: Weights
    stored: saving.Stored | None = None


def run(config: Config, progress: Progress) -> Result:
    """Measure dense, compress, measure again."""
    from experiments import roster

    config.target.check()
    roster.refuse(config.method, config.budget)
    roster.refuse_ranks(config.method, max(config.ranks, together.torchrun()))
    device = config.reading.device
    with together.ranks(__name__, config, config.ranks, progress, device) as ranks:
        return _run(config, progress, ranks)


def _run(config: Config, progress: Progress, ranks: "TorchRanks | None") -> Result:
    from bridge.adapter import refuse_experts
    from bridge.sites import linears
    from experiments import measure, roster
    from experiments.ranks import agreed

    if config.target.form == "base+lora" and config.method in roster.WITHOUT_LOW_RANK:
        raise BadOption(
            f"--form base+lora: {config.method} leaves no low-rank term to make an adapter of; "
            "choose dense or packed"
        )
    target = blockwise.with_shards(config.target, config.reading.on_disk)
    reading = replace(config.reading, device=together.place(config.reading.device))
    loaded = measure.loaded_model(reading, progress)
    named = linears(loaded.model, config.select)  # a glob that matches nothing is refused now
    if config.target.form == "base+lora":
        refuse_experts(loaded.model, named)
    material = measure.material(loaded, config.reading, config.sizes, progress)
    if ranks is not None:
        agreed.check(ranks, config, loaded, material)
    dense = measure.measure(loaded.model, material, progress, "dense", ranks)
    before = saving.nbytes(loaded.model)
    batches = material.calibration.split(measure.AT_ONCE)
    method = roster.fitted(config.method, config.budget, loaded.model, batches)
    done = squeeze(replace(config, target=target), method, loaded, material, progress, ranks)
    with blockwise.compressed(loaded.model, target.shards):
        after = measure.measure(loaded.model, material, progress, "compressed", ranks)
    result = Result(
        config=config,
        inputs=material.inputs,
        heads=dense.scores.shape[0] * dense.scores.shape[2],
        dense=measure.effect("dense", dense, dense),
        effect=measure.effect(config.method, after, dense),
        weights=accounts(config.method, done),
    )
    if ranks is not None:
        together.tell(ranks, progress)
    if config.target.folder is None or (ranks is not None and ranks.rank > 0):
        return result
    says = saving.provenance(result, done, material.calibration)
    stored = saving.save(loaded, target, says, before)
    blockwise.drop(target, config.target)
    return replace(result, stored=stored)


def squeeze(
    config: Config,
    method: "AnyMethod",
    loaded: "Loaded",
    material: "Material",
    progress: Progress,
    ranks: "TorchRanks | None" = None,
) -> "Compression":
    """Compress the selected linears in place."""
    from bridge.compress import compress
    from bridge.rank_shards import RankShards
    from bridge.shards import Shards
    from bridge.sites import linears
    from experiments import measure

    batches = material.calibration.split(measure.AT_ONCE)
    shards = None if config.target.shards is None else Shards(config.target.shards, progress.say)
    kept = shards if shards is None or ranks is None else RankShards(shards, ranks)
    with progress.task(config.method, len(linears(loaded.model, config.select))) as advance:
        done = compress(
            loaded.model,
            method,
            batches,
            select=config.select,
            shards=kept,
            ranks=ranks,
            spill=blockwise.spill(config.target, config.reading.on_disk, ranks),
            advance=advance,
        )
    if done.halved:
        progress.say(f"memory ran out: batches were halved {done.halved} times")
    if done.left:
        progress.say(f"left dense: {', '.join(done.left)}")
    return done


def accounts(name: str, done: "Compression") -> Weights:
    """What `ctr` prints of a compression."""
    cost = done.cost
    errors = [row.error for row in done.rows]
    return Weights(
        method=name,
        linears=len(done.rows),
        parameters=cost.parameters,
        kept=cost.kept,
        bits=cost.bits,
        delta_w=done.delta_w,
        error=sum(errors) / len(errors),
        seconds=done.seconds,
        comparable=all(row.comparable for row in done.rows),
    )


def sections(result: Result) -> list[Section]:
    """Losses and sinks, then weights."""
    what = f"{effects.percent(result.config.budget.sparsity)} {result.config.method}"
    tables = [
        effects.table([result.dense, result.effect], result.heads, result.inputs),
        effects.weights_table([result.weights]),
    ]
    if result.stored is not None:
        tables.append(saving.table(result.stored))
    return [Section(what, [effects.sentence(what, result.effect)], tables)]
