"""What `sparsify` does: calibrate, fit, judge beside controls, save."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from transformers import PreTrainedModel

from bridge.decode import places
from bridge.decode.inputs import calibrate
from bridge.decode.places import HEAD
from bridge.decode.plan import Plan, Setting, read_share
from bridge.decode.plan_file import load_plan
from bridge.decode.recipe import Recipe, fit
from bridge.decode.settled import settled
from bridge.decode.sparsified import sparsified
from bridge.sites import linears
from experiments import measure
from experiments.decoding.sparsify import BARE, DENSE, RANDOM, RECIPE, Config, Result, Row
from experiments.intervals import interval
from experiments.measure import Material
from experiments.progress import Advance, Progress
from experiments.serial import plain
from experiments.settings import Sizes

KEEP = 2048
"""Tokens of the calibration that are kept."""


def answer(config: Config, progress: Progress) -> Result:
    """Everything."""
    loaded = measure.loaded_model(config.reading, progress)
    model = loaded.model
    plan = planned(config, model)
    sizes = Sizes(config.calibration, config.windows, config.context, 2, 64)
    material = measure.material(loaded, config.reading, sizes, progress)
    says = {"config": plain(config), "inputs": plain(material.inputs)}
    recipe = replace(fitted(config, model, plan, material, progress), provenance=says)
    rows, tokens_sparse = judged(config, model, recipe, material, progress)
    shapes = {n: (int(x[0]), int(x[1])) for n, x in recipe.likeness.items()}
    result = Result(
        config, material.inputs, len(plan), read_share(plan, shapes), tokens_sparse, rows
    )
    if config.target.into is None:
        return result
    files = recipe.save(config.target.into).glob("*.safetensors")
    return replace(result, bytes=sum(file.stat().st_size for file in files))


def planned(config: Config, model: nn.Module) -> Plan:
    """A file's settings, or one for all. Raises BadInput where a file holds none of this model."""
    if config.plan is None:
        setting = Setting(config.sparsity, config.alpha, config.rule, config.factors)
        return dict.fromkeys([*linears(model), *([HEAD] if config.head else [])], setting)
    plan = load_plan(config.plan)
    places.planned(model, plan)  # refused before the work
    return plan


def fitted(
    config: Config, model: nn.Module, plan: Plan, material: Material, progress: Progress
) -> Recipe:
    """Thresholds and factors, settled in the sparse model."""
    batches = material.calibration.split(measure.AT_ONCE)
    with progress.task("calibrate", len(batches)) as advance:
        inputs = calibrate(
            model, batches, keep=KEEP, seed=config.seed, head=HEAD in plan, advance=advance
        )
    with progress.task("fit", len(plan)) as advance:
        recipe = fit(model, plan, inputs, advance=advance)
    if config.rounds == 0:
        return recipe
    with progress.task("settle", config.rounds * len(batches)) as advance:
        return settled(
            model, recipe, batches, rounds=config.rounds, sparse_from=config.sparse_from,
            keep=KEEP, seed=config.seed, advance=advance,
        )  # fmt: skip


def judged(
    config: Config, model: PreTrainedModel, recipe: Recipe, material: Material, progress: Progress
) -> tuple[list[Row], float]:
    """Losses beside the dense model's; the share of the tokens that were gated."""
    ways = {RECIPE: recipe}
    if recipe.down:
        ways[BARE] = replace(recipe, down={}, up={})
    ways[RANDOM] = at_random(recipe, config.seed)
    with progress.task(DENSE, len(material.evaluation)) as advance:
        dense = _losses(model, material, advance)
    rows, share = [_row(DENSE, dense, dense, 1.0)], 0.0
    for name, way in ways.items():
        with (
            progress.task(name, len(material.evaluation)) as advance,
            sparsified(
                model, way, sparse_from=config.sparse_from, layout="shared", count=True
            ) as decoding,
        ):
            nll = _losses(model, material, advance)
        rows.append(_row(name, nll, dense, decoding.read))
        share = decoding.tokens_sparse
    return rows, share


def at_random(recipe: Recipe, seed: int) -> Recipe:
    """The control: channels drawn once, as many as the whole budget of a linear reads."""
    generator = torch.Generator().manual_seed(seed)
    thresholds = {}
    for name, setting in recipe.plan.items():
        d_in = len(recipe.thresholds[name])
        kept = torch.randperm(d_in, generator=generator)[: round((1 - setting.sparsity) * d_in)]
        thresholds[name] = torch.full((d_in,), float("inf"))
        thresholds[name][kept] = -1.0
    return replace(recipe, thresholds=thresholds, down={}, up={}, bias={})


def _losses(
    model: PreTrainedModel, material: Material, advance: Advance
) -> Float[np.ndarray, " windows"]:
    return measure.window_losses(model, material.evaluation, material.bos_id, advance)


def _row(name: str, nll: np.ndarray, dense: np.ndarray, read: float) -> Row:
    return Row(name, float(np.exp(min(nll.mean(), 700.0))), interval(nll - dense), read)
