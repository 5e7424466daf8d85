"""A model under a method at a sparsity, at equal budgets; compressed once, kept for the next."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments.progress import Progress
from experiments.settings import Budget

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from bridge.compression import Compression
    from experiments.parts.work import Work


class Variant(NamedTuple):
    """A method of `ctr compress` at a share of weights removed; ("dense", 0): none."""

    method: str
    sparsity: float = 0.0

    def __str__(self) -> str:
        return f"{self.method} {self.sparsity:.0%}" if self.sparsity else self.method


DENSE = Variant("dense")


@contextmanager
def intervened(
    work: "Work",
    variant: Variant,
    progress: Progress,
    *,
    select: str = "*",
    budget: Budget | None = None,
    cache: Path | None = None,
) -> "Iterator[Compression | None]":
    """The model compressed inside, dense again after; gives None for the dense one.

    Every selected linear keeps as many numbers as Wanda of that sparsity keeps (`same_budget`).
    Terms can be switched off inside: `bridge.toggle.without(model, LowRank)`. Done blocks are kept
    in `cache` (default: compressed/ in the user's cache folder), by all that their bytes depend
    on, the code of `bridge` among it: the second time nothing is calibrated.

    Raises:
        BadInput: an unknown method, or one without a number to fit to the budget.
    """
    from bridge.compress import compress
    from bridge.compression import restore
    from bridge.fingerprint import fingerprint
    from bridge.shards import Shards
    from experiments import measure
    from mech.gguf import cache_folder

    if not variant.sparsity:
        yield None
        return
    model, batches = work.loaded.model, work.calibration.split(measure.AT_ONCE)
    methods = fitted(work, variant, select, budget)
    run = fingerprint(model, methods, batches, select=select)
    name = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:24]
    folder = (cache or cache_folder() / "compressed") / name
    with progress.task(str(variant), len(methods)) as advance:
        done = compress(
            model,
            methods,
            batches,
            select=select,
            # Runs of a sweep may ask for the same compression at the same time.
            shards=Shards(folder, progress.say, wait=True),
            advance=advance,
        )
    try:
        yield done
    finally:
        restore(model, done)


def fitted(work: "Work", variant: Variant, select: str, budget: Budget | None) -> dict:
    """By linear, the method that keeps as many numbers as Wanda of the sparsity does."""
    from bridge.equal import same_budget, shapes_of
    from bridge.methods.wanda import Wanda
    from bridge.patterns import RowWise, exact
    from experiments import roster

    shapes = shapes_of(work.loaded.model, select)
    wanda = Wanda(RowWise(float(1 - exact(variant.sparsity))))
    template = roster.build(variant.method, budget or Budget())
    return same_budget(template, dict.fromkeys(shapes, wanda), shapes)
