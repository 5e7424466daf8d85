"""Bind the ways of a format, let them take turns, and reduce what the clocks said."""

import math

import numpy as np
import torch
from transformers import DynamicCache

from bridge.decode.fast_shape import shape_of
from bridge.decode.plan import Setting
from bridge.decode.recipe import Recipe
from experiments.decoding import speed_ways
from experiments.decoding.speed import DENSE, FASTEST, QUANTISED, Config, Result, Row
from experiments.decoding.speed_models import RANDOM, Timed, recipe_of, timed_model
from experiments.decoding.speed_timing import bandwidth, median
from experiments.decoding.speed_ways import Way
from experiments.intervals import interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.threads import settle
from mech.errors import BadInput

WATCHED = 6
"""Every so many tokens one is run with clocks around linears, for every way."""
WARM = 2
"""Tokens of a window that are run and not counted."""


def answer(config: Config, progress: Progress) -> Result:
    """All formats, one after the other: two at once would need twice the memory."""
    settle(progress)
    rows: list[Row] = []
    forms: dict[str, dict[str, str]] = {}
    text = ""
    for dtype in config.dtypes:
        with progress.task(f"{config.reading.model}, {dtype}"):
            seq = config.prompt + config.tokens + WARM + 1
            kind = getattr(torch, dtype)
            timed = timed_model(config.reading, kind, config.calibration, config.windows, seq)
        text = timed.text
        ways, forms[dtype] = _ways(config, timed, progress)
        _take_turns(config, timed, ways, progress)
        rows += [_row(dtype, name, way, ways, config) for name, way in ways.items()]
    inputs = Inputs(
        model=config.reading.model,
        text=text,
        dtype=" ".join(config.dtypes),
        threads=torch.get_num_threads(),
    )
    return Result(config, inputs, rows, forms, bandwidth())


@torch.no_grad()
def _ways(
    config: Config, timed: Timed, progress: Progress
) -> tuple[dict[str, Way], dict[str, str]]:
    """Sparse ones first: their rows take memory of their own, and the weights come back."""
    model = timed.model
    shape = shape_of(model)
    if isinstance(shape, str):
        raise BadInput(f"{config.reading.model}: {shape}, and compiled steps know no other")
    if config.recipe is not None:
        recipe = Recipe.load(config.recipe)
    else:
        setting = Setting(config.sparsity, config.alpha, factors=config.factors)
        random = config.reading.model == RANDOM
        recipe = recipe_of(timed, setting, head=config.head, random=random, progress=progress)
    names = {p: "sparse" if p == "weights" else f"sparse, {p} rows" for p in config.rows}
    sparse = {name: speed_ways.sparse(model, shape, recipe, p) for p, name in names.items()}
    fastest, forms = speed_ways.fastest_dense(model, shape)
    torchs = {QUANTISED[p]: speed_ways.quantised(model, shape, p) for p in config.quantised}
    return {DENSE: speed_ways.dense(model, shape), FASTEST: fastest, **torchs, **sparse}, forms


@torch.no_grad()
def _take_turns(config: Config, timed: Timed, ways: dict[str, Way], progress: Progress) -> None:
    order = np.random.default_rng(0)
    several = list(ways.values())
    with progress.task("tokens", config.windows * (config.tokens + WARM)) as advance:
        for number, window in enumerate(timed.ids):
            run = timed.model(input_ids=window[None, : config.prompt], use_cache=True)
            assert isinstance(run.past_key_values, DynamicCache)
            for way in several:
                way.begin(run.past_key_values)
            for index in range(config.prompt, config.prompt + config.tokens + WARM):
                token, following = window[index : index + 1], window[index + 1 : index + 2]
                if index % WATCHED == 0:
                    for way in several:
                        way.watched(token)
                for k in order.permutation(len(several)):
                    several[k].token(token, following)
                if index < config.prompt + WARM:
                    for way in several:
                        way.seconds.pop()
                advance(f"window {number + 1}, token {index}")


def _row(dtype: str, name: str, way: Way, ways: dict[str, Way], config: Config) -> Row:
    def over(other: Way) -> np.ndarray:
        return np.array(other.seconds) / np.array(way.seconds)

    dense = ways[DENSE]
    codes = [way for name, way in ways.items() if name in QUANTISED.values()]
    best = min(codes, key=lambda way: float(np.median(way.seconds)), default=None)
    losses, own = (np.array(w.nll).reshape(config.windows, -1).mean(axis=1) for w in (dense, way))
    mean = float(np.mean(way.nll))
    return Row(
        dtype=dtype,
        way=name,
        milliseconds=1e3 * float(np.median(way.seconds)),
        over_dense=median(over(dense)),
        over_fastest=median(over(ways[FASTEST])),
        over_quantised=None if best is None else median(over(best)),
        linears=median(np.array(ways[FASTEST].inside) / np.array(way.inside)),
        outside=float(np.median(way.outside)),
        ppl=math.nan if config.reading.model == RANDOM else math.exp(min(mean, 700)),
        nll=interval(own - losses),
        read=way.bytes_read,
    )
