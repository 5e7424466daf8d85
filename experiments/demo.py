"""From the theorem to a real language model, on one page."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments import compress, effects, naming, probe, terms, toy_train, toy_verify
from experiments.compress import Weights
from experiments.probing.prompts import FIRST
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Picture, Section
from experiments.settings import Budget, Reading, Sizes, within
from experiments.where import Where

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.measure import Effect, Material, Measured
    from mech.load import Loaded

METHODS = ("magnitude", "wanda", "oats")


@dataclass(frozen=True)
class Config:
    """The whole story, sized for a laptop."""

    reading: Reading = field(default_factory=Reading)
    prompt: str = FIRST
    """The text to picture, or the name of one of ours: laugh, zero-shot, worked, nli, four-shot."""
    budget: Budget = field(default_factory=Budget)
    sizes: Sizes = field(default_factory=lambda: Sizes(16, 16, 256, 16, 128))
    seeds: int = 64
    """Seeds of the toy's training."""
    steps: int = 4000
    """Steps of the toy's training."""
    inputs: int = 10_000
    """Random inputs on which the theorem's bound is tried."""
    seed: int = 0
    """What all randomness is derived from."""


@dataclass(frozen=True)
class Result:
    """The answers of the questions that the page asks, one by one."""

    config: Config
    inputs: Inputs
    verified: toy_verify.Result
    trained: toy_train.Result
    probed: probe.Result
    compressed: "list[Effect]"
    weights: list[Weights]
    terms: terms.Result


def run(config: Config, progress: Progress) -> Result:
    """The toy, and the model: probed, compressed three ways, taken apart.

    Whatever the options may have wrong comes out before anything takes long.
    """
    from bridge.sites import linears
    from experiments import measure, roster

    for name in METHODS:
        roster.build(name, config.budget)
    within("inputs", config.inputs, 10)
    training = toy_train.Config(seeds=config.seeds, steps=config.steps, seed=config.seed)
    toy_train.check(training)
    loaded = measure.loaded_model(config.reading, progress)
    linears(loaded.model, Where.select)
    material = measure.material(loaded, config.reading, config.sizes, progress)
    looking = probe.Config(
        config.reading,
        config.prompt,
        sequences=config.sizes.sequences,
        seq=config.sizes.seq,
    )
    probed = probe.answer(looking, loaded, material, progress)
    verifying = toy_verify.Config(
        cases=config.inputs,
        random=config.inputs,
        adversarial=config.inputs // 10,
        seed=config.seed,
    )
    verified = toy_verify.run(verifying, progress)
    trained = toy_train.run(training, progress)
    dense = measure.measure(loaded.model, material, progress, "dense")
    compressed = [measure.effect("dense", dense, dense)]
    weights = []
    for name in METHODS:
        effect, account = _compress(config, name, loaded, material, dense, progress)
        compressed.append(effect)
        weights.append(account)
    taking_apart = terms.Config(
        config.reading,
        config.budget,
        questions=("terms",),
        sizes=config.sizes,
        seed=config.seed,
    )
    apart = terms.answer(taking_apart, loaded, material, dense, progress)
    return Result(config, material.inputs, verified, trained, probed, compressed, weights, apart)


def _compress(
    config: Config,
    name: str,
    loaded: "Loaded",
    material: "Material",
    dense: "Measured",
    progress: Progress,
) -> "tuple[Effect, Weights]":
    """One method on the whole model, which is dense again afterwards."""
    from bridge.compression import restore
    from experiments import measure, roster

    settings = compress.Config(config.reading, name, config.budget)
    method = roster.build(name, config.budget)
    done = compress.squeeze(settings, method, loaded, material, progress)
    after = measure.measure(loaded.model, material, progress, f"measure {name}")
    restore(loaded.model, done)
    return measure.effect(name, after, dense), compress.accounts(name, done)


def sections(result: Result) -> list[Section]:
    """The page, from the theorem to the model."""
    theorem, _ = toy_verify.sections(result.verified)
    return [
        _summary(result),
        theorem,
        *toy_train.sections(result.trained),
        *probe.sections(result.probed),
        _three_ways(result),
        *terms.sections(result.terms),
    ]


def _summary(result: Result) -> Section:
    """What was found, in a few sentences that the numbers below must carry."""
    bound = result.verified.found.bound
    seen = result.trained.diagnosis
    sinks = result.probed
    found = result.terms.found
    kept = {name: effects.share(effect.kept.first_recall) for name, effect in found.items()}
    text = [
        "A theorem says that low-rank attention weights make sinks and outlier features, and that "
        "a model can use them to mark tokens: catch them at a sink, tag them, release them into "
        "the stream. This page checks it, from the proof to a real model.",
        f"The theorem's bound was violated on {bound.violations} of "
        f"{bound.random_inputs + bound.adversarial_inputs:,} inputs. Training found the mechanism "
        f"from {int(seen.found.sum())} of {len(seen.found)} seeds, with a recipe chosen for it.",
        f"In {result.inputs.model} the first token is a sink in {sinks.first.mean:.0f} of "
        f"{sinks.heads} heads, and {sinks.later.mean:.0f} later sinks stand in a sequence of "
        f"{sinks.config.seq} tokens.",
        _ordering(result.compressed),
        f"In the attention projections OATS' sparse term alone keeps "
        f"{kept[naming.SPARSE]} of the first-token sinks, its low-rank term "
        f"alone {kept[naming.LOW]}, and a plain sparse matrix with as many "
        f"nonzeros {kept[naming.PLAIN]}.",
    ]
    return Section("In short", text)


def _ordering(compressed: "list[Effect]") -> str:
    methods = compressed[1:]
    ranked = sorted(methods, key=lambda effect: effect.ppl)
    listed = ", ".join(f"{e.name} {effects.number(e.ppl)}" for e in ranked)
    later = ", ".join(f"{e.name} {effects.share(e.kept.later_recall)}" for e in ranked)
    return (
        f"After pruning, perplexity goes from {effects.number(compressed[0].ppl)} to: {listed}. "
        f"Of the later sinks remain: {later}."
    )


def _three_ways(result: Result) -> Section:
    methods = result.compressed[1:]
    percent = effects.percent(result.config.budget.sparsity)
    text = [effects.sentence(f"{percent} {e.name}", e) for e in methods]
    text += [_contradictions(result)]
    tables = [
        effects.table(result.compressed, result.probed.heads, result.inputs),
        effects.weights_table(result.weights),
    ]
    shown: list[Picture] = [
        effects.sink_bars(methods, "methods-sinks", f"{percent} of the weights removed"),
        effects.forest(methods, "methods-loss", f"{percent} of the weights removed"),
    ]
    return Section(f"What {percent} pruning does", text, tables, shown)


def _contradictions(result: Result) -> str:
    """Where the numbers and the papers part, said as it comes out."""
    dense, *methods = result.compressed
    by_name = {e.name: e for e in methods}
    weights = {w.method: w for w in result.weights}
    wanda, raw = by_name["wanda"], dense.sinks.raw.mean
    fewer = wanda.sinks.raw.high < dense.sinks.raw.low
    closer = weights["oats"].delta_w < weights["magnitude"].delta_w
    return (
        "The papers report fewer sinks after sparse pruning. By count, Wanda has "
        f"{wanda.sinks.raw.mean:.0f} against {raw:.0f} in the dense model: "
        f"{'reproduced' if fewer else 'not reproduced'}. A count does not say which sinks remain: "
        "recall and precision in the table do. The papers find OATS closer to the dense weights "
        f"than magnitude pruning in Frobenius norm: {'reproduced' if closer else 'not reproduced'} "
        f"here (Δ_W {weights['oats'].delta_w:.3e} against {weights['magnitude'].delta_w:.3e})."
    )
