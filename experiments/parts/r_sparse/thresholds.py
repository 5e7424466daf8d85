"""R-Sparse with thresholds of one text, on another."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from bridge.decode.baselines import plans
from bridge.decode.inputs import calibrate
from bridge.decode.recipe import Recipe, fit
from bridge.decode.sparsified import sparsified
from bridge.sites import linears
from experiments import measure
from experiments.progress import Progress

if TYPE_CHECKING:
    from experiments.parts.r_sparse.domains import Domain
    from experiments.parts.work import Work


class Served(NamedTuple):
    """Nats a token of each window of one domain: dense, under its own thresholds, under the first
    domain's; and the shares of the linears' numbers that the two really read."""

    dense: Float[np.ndarray, " windows"]
    own: Float[np.ndarray, " windows"]
    first: Float[np.ndarray, " windows"]
    own_read: float
    first_read: float


def recipes(
    work: "Work", domains: "Sequence[Domain]", sparsity: float, keep: int, progress: Progress
) -> dict[str, Recipe]:
    """R-Sparse's uniform recipe (5% in plain SVD), thresholds of the dense model on each domain."""
    model, found = work.loaded.model, {}
    modules = linears(model)
    plan = plans.r_sparse(modules, sparsity)
    for domain in domains:
        batches = domain.calibration.split(measure.AT_ONCE)
        with progress.task(f"calibrate on {domain.name}", len(batches)) as advance:
            inputs = calibrate(model, batches, keep=keep, advance=advance)
        if not found:  # factors of the weights alone are the same for all
            found[domain.name] = fit(model, plan, inputs)
            continue
        thresholds = {n: inputs.thresholds(n, m.weight, plan[n]) for n, m in modules.items()}
        found[domain.name] = replace(found[domains[0].name], thresholds=thresholds)
    return found


def served(
    work: "Work",
    domains: "Sequence[Domain]",
    found: Mapping[str, Recipe],
    progress: Progress,
) -> dict[str, Served]:
    """Every domain but the first under its own thresholds and under the first one's."""
    answers = {}
    for domain in domains[1:]:
        dense, _ = _losses(work, domain, None, progress)
        own, own_read = _losses(work, domain, found[domain.name], progress)
        first, first_read = _losses(work, domain, found[domains[0].name], progress)
        answers[domain.name] = Served(dense, own, first, own_read, first_read)
    return answers


def units(found: Mapping[str, Served]) -> dict[str, Float[np.ndarray, " windows"]]:
    """Nats a token by what and domain; and what the first domain's thresholds cost above its own,
    less a tenth of what sparsity costs with its own."""
    named = {}
    for name, one in found.items():
        named |= {
            f"dense, {name}": one.dense,
            f"own, {name}": one.own,
            f"first's, {name}": one.first,
        }
        tenth = 0.1 * (one.own - one.dense)
        named[f"first's above a tenth, {name}"] = one.first - one.own - tenth
    return named


def _losses(
    work: "Work", domain: "Domain", recipe: Recipe | None, progress: Progress
) -> tuple[Float[np.ndarray, " windows"], float]:
    model = work.loaded.model
    with progress.task(f"score {domain.name}", len(domain.windows)) as advance:
        if recipe is None:
            return measure.window_losses(model, domain.windows, work.bos_id, advance), 1.0
        with sparsified(model, recipe, sparse_from=0.0, count=True) as decoding:
            losses = measure.window_losses(model, domain.windows, work.bos_id, advance)
            return losses, decoding.read
