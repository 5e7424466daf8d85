"""What `search` does: calibrate, search, fit, judge."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from bridge.decode.inputs import calibrate
from bridge.decode.plan import Plan, Setting, read_share
from bridge.decode.recipe import Recipe, fit
from bridge.decode.sparsified import sparsified
from bridge.search.costs import costs
from bridge.search.evolution import Evolution
from bridge.search.gates import Gates
from bridge.search.journal import Journal, key
from bridge.search.judge import Judge
from bridge.search.knapsack import Costs, knapsack
from bridge.search.objective import Objective
from bridge.search.refine import refine, without_factors
from bridge.search.sensitivity import sensitivity
from bridge.sites import block_of, linears
from experiments import measure
from experiments.decoding.search import (
    DENSE,
    FOUND,
    PLAIN,
    R_SPARSE,
    TEAL,
    Config,
    Judged,
    Kind,
    Result,
    length,
    processes,
)
from experiments.intervals import interval
from experiments.measure import Material
from experiments.progress import Progress
from experiments.settings import Sizes

SETTLED = 2
"""Passes over the calibration windows until thresholds fit the gated model's own inputs."""
BATCH = 4  # windows in one pass


@dataclass(frozen=True)
class Work:
    """The model, and the windows of its text: calibration, trials, held out."""

    config: Config
    model: PreTrainedModel
    material: Material
    batches: Sequence[Int[Tensor, "_batch _seq"]]
    trials: Sequence[Int[Tensor, "_batch _seq"]]
    progress: Progress

    @property
    def names(self) -> list[str]:
        """Of the linears, in order of depth."""
        return list(linears(self.model))

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(d_out, d_in) by name."""
        return {n: (m.out_features, m.in_features) for n, m in linears(self.model).items()}

    def uniform(self, setting: Setting) -> Plan:
        """The same everywhere."""
        return dict.fromkeys(self.names, setting)

    def gates(self, plan: Plan) -> Gates:
        """With thresholds of the model that `plan` has gated."""
        with self.progress.task("thresholds", SETTLED + 1) as advance:
            keep = sum(ids.numel() for ids in self.batches)
            gates = Gates(self.model, calibrate(self.model, self.batches, keep=keep), plan)
            advance("of the dense model")
            for _ in range(SETTLED):
                gates = gates.settled(plan, self.batches, keep)
                advance("of the gated model")
        return gates


def answer(config: Config, progress: Progress) -> Result:
    """Everything."""
    loaded = measure.loaded_model(config.reading, progress)
    sizes = Sizes(config.calibration + config.samples, config.windows, config.context, 2, 64)
    material = measure.material(loaded, config.reading, sizes, progress)
    fitted, seen = material.calibration.split([config.calibration, config.samples])
    trials = seen[:, : length(config)].split(config.samples)
    work = Work(config, loaded.model, material, fitted.split(2), trials, progress)
    others: dict[str, Plan] = {
        TEAL: work.uniform(Setting(config.sparsity)),
        R_SPARSE: work.uniform(Setting(config.sparsity, 0.95)),
    }
    with progress.task("dense", len(material.evaluation)) as advance:
        dense = measure.window_losses(loaded.model, material.evaluation, material.bos_id, advance)
    if config.method == "evolution":
        plan, loss, measured = evolved(work)
    else:
        found = costed(work)
        others[PLAIN] = knapsack(without_factors(found), work.shapes, config.sparsity)
        plan, loss, measured = _refined(work, found)
    judged = [_judged(DENSE, 1.0, 1.0, dense, dense, None)]
    teal = None
    for name, one in {**others, FOUND: plan}.items():
        recipe = _fitted(work, one)
        nll, read = _losses(work, recipe, name)
        planned = read_share(one, work.shapes)
        judged.append(_judged(name, planned, read, nll, dense, teal))
        teal = nll if teal is None else teal
        progress.say(f"{name}: {judged[-1].above} nats a token above dense, {read:.4f} read")
        if name == FOUND:
            _save(config, recipe)
    says = {name: asdict(setting) for name, setting in plan.items()}
    kinds = _kinds(plan, work.shapes)
    return Result(config, material.inputs, loss, measured, says, judged, kinds)


def costed(work: Work) -> Costs:
    """What every setting of every linear costs, by one backward pass."""
    model, config = work.model, work.config
    with work.progress.task("gradients", len(work.batches)) as advance:
        seen = sensitivity(model, work.batches, seed=config.seed, advance=advance)
    weights = {name: linear.weight for name, linear in linears(model).items()}
    with work.progress.task("costs", len(weights)) as advance:
        return costs(weights, seen, advance=advance)


def _refined(work: Work, found: Costs) -> tuple[Plan, float, int]:
    config = work.config
    start = knapsack(found, work.shapes, config.sparsity)
    gates = work.gates(start)
    # Of every linear the most that any candidate has, so that no trial fits factors anew.
    for name, candidates in found.items():
        settings = (candidate.setting for candidate in candidates)
        gates.reserve({name: max(settings, key=lambda s: s.rank(*work.shapes[name]))})
    journal = _journal(work)
    with work.progress.task("trials", 3 + config.rounds * 24) as advance:
        judge = Judge(_objective(work, gates), journal, processes(config), advance)
        # Costs are of few tokens: whether factors pay at all is asked of the model itself.
        tables = (found, without_factors(found))
        losses = judge([start, knapsack(tables[1], work.shapes, config.sparsity)])
        better = tables[losses[1] < losses[0]]
        plan, loss = refine(
            better, work.shapes, config.sparsity, judge,
            rounds=config.rounds, told=work.progress.say,
        )  # fmt: skip
    return plan, loss, len(journal.values)


def evolved(work: Work) -> tuple[Plan, float, int]:
    """R-Sparse's search: the plan, its loss on the trials' windows, and how many were measured."""
    config, names = work.config, work.names
    options = Evolution(config.population, config.generations, group=config.group, seed=config.seed)
    gates = work.gates(work.uniform(Setting(config.sparsity)))
    # Singular vectors are nested: one decomposition a linear serves every ρ.
    gates.reserve(work.uniform(Setting(config.sparsity, 0.0)))
    objective, journal = _objective(work, gates), _journal(work)
    groups = -(-len(names) // config.group)

    def plan(vector: Float[np.ndarray, " _variables"]) -> Plan:
        pairs = zip(names, vector, strict=True)
        return {name: Setting(config.sparsity, float(alpha)) for name, alpha in pairs}

    total = groups * config.population * (1 + config.generations)
    with work.progress.task("trials", total) as advance:
        judge = Judge(objective, journal, processes(config), advance)

        def fitness(first: int, best: Float[np.ndarray, " _variables"]):
            def losses(vectors):
                with objective.after(block_of(names[first]), plan(best)):
                    return judge([plan(vector) for vector in vectors])

            return losses

        best, loss = options.search(
            np.ones(len(names)),
            fitness,
            lambda first, loss: work.progress.say(f"from {names[first]} on: loss {loss:.4f}"),
        )
    return plan(best), loss, len(journal.values)


def _objective(work: Work, gates: Gates) -> Objective:
    return Objective(work.model, work.trials, gates)


def _journal(work: Work) -> Journal:
    """By what the losses depend on: not by how the search goes from one to the next."""
    config, inputs = work.config, work.material.inputs
    of = {
        "model": inputs.model_sha256,
        "text": inputs.text_sha256,
        "first": list(inputs.first_ids),
        "method": config.method,
        "sizes": [config.calibration, config.samples, length(config), config.context],
        "sparsity": config.sparsity,
        "seed": config.seed,
    }
    file = config.state / f"{key(of)}.jsonl"
    work.progress.say(f"trials are kept in {file}: a run that is killed goes on from there")
    return Journal(file, of)


def _fitted(work: Work, plan: Plan) -> Recipe:
    gates = work.gates(plan)
    with work.progress.task("recipe", len(plan)) as advance:
        provenance: dict[str, Any] = {"search": work.config.method, "settled": SETTLED}
        return fit(work.model, plan, gates.inputs, provenance=provenance, advance=advance)


def _losses(work: Work, recipe: Recipe, name: str) -> tuple[Float[np.ndarray, " windows"], float]:
    """Losses on the held-out windows, and the share of all bytes that was read for them."""
    material, shapes = work.material, work.shapes
    with (
        work.progress.task(name, len(material.evaluation)) as advance,
        sparsified(work.model, recipe, sparse_from=0.0, count=True) as decoding,
    ):
        nll = measure.window_losses(work.model, material.evaluation, material.bos_id, advance)
        read = sum(
            gated.read * d_out * d_in + gated.rank * (d_out + d_in)
            for gated, (d_out, d_in) in ((g, shapes[n]) for n, g in decoding.gated.items())
        )
    return nll, read / sum(d_out * d_in for d_out, d_in in shapes.values())


def _judged(
    name: str,
    planned: float,
    read: float,
    nll: Float[np.ndarray, " windows"],
    dense: Float[np.ndarray, " windows"],
    teal: Float[np.ndarray, " windows"] | None,
) -> Judged:
    ppl = float(np.exp(min(nll.mean(), 700.0)))
    paired = None if teal is None else interval(nll - teal)
    return Judged(name, ppl, planned, read, interval(nll - dense), paired)


def _kinds(plan: Plan, shapes: Mapping[str, tuple[int, int]]) -> list[Kind]:
    by: dict[str, list[str]] = {}
    for name in plan:
        by.setdefault(name.split(".", 2)[2], []).append(name)
    found = []
    for kind, names in by.items():
        whole = sum(shapes[n][0] * shapes[n][1] for n in names)
        read = read_share({n: plan[n] for n in names}, {n: shapes[n] for n in names})
        ranks = {n: plan[n].rank(*shapes[n]) for n in names}
        spent = sum(rank * sum(shapes[n]) for n, rank in ranks.items())
        factors = spent / (read * whole) if read else 0.0
        columns = sum(plan[n].rule == "column" for n in names)
        ranked = sum(rank > 0 for rank in ranks.values())
        found.append(Kind(kind, len(names), read, ranked, factors, columns))
    return found


def _save(config: Config, recipe: Recipe) -> None:
    if config.save is None:
        return
    config.save.mkdir(parents=True)
    recipe.save(config.save / "recipe")
    says = {"plan": {name: asdict(setting) for name, setting in recipe.plan.items()}}
    text = json.dumps(says, indent=1)
    (config.save / "plan.json").write_text(text + "\n", encoding="utf-8")
