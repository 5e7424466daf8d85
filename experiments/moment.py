"""What does the whole second moment buy OATS, at equal budget?

Output errors linear by linear, on the tokens that calibrated it and on others, and perplexities on
two texts, paired with OATS as its authors define it.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.effects import percent
from experiments.intervals import Interval, interval, of_few
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.recalls import clear
from experiments.report import Section, Table
from experiments.settings import BadOption, Budget, Reading, Sizes, some

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from bridge.method import Method
    from experiments.moment_layers import Layer

DEFINITION = "oats-definition"
"""OATS whose every iteration takes the top of a carried subspace: `moment_layers.NearlySVD`."""


@dataclass(frozen=True)
class Config:
    """OATS with the diagonal and with the whole second moment, beside SparseGPT and Wanda."""

    reading: Reading = field(default_factory=Reading)
    other: Path | None = None
    """A second text: its second half is evaluated on, too, and nothing is calibrated on it."""
    methods: tuple[str, ...] = (DEFINITION, "oats-moment", "sparsegpt", "wanda")
    """Names as in ctr compress, and oats-definition; the others are paired with the first."""
    budget: Budget = field(default_factory=Budget)
    sizes: Sizes = field(default_factory=lambda: Sizes(16, 12, 256, 2, 64))
    select: str = "*"
    """Which linears are compressed for the perplexities, as a glob."""
    errors: str = "layers.14.*"
    """Which linears of the dense model the output errors are read on, as a glob."""


class Loss(NamedTuple):
    """exp of the mean loss on one text; nats a token above the first method's, over windows."""

    method: str
    text: str
    density: float
    ppl: float
    above: Interval


@dataclass(frozen=True)
class Result:
    """Errors by linear, then losses by method and text; the dense model's are the first."""

    config: Config
    inputs: Inputs
    layers: "list[Layer]"
    losses: list[Loss]


def run(config: Config, progress: Progress) -> Result:
    """Errors on the dense model's inputs; then compress by each method, and read both texts.

    Raises:
        BadOption: a method that is named twice, or none.
        BadInput: an unknown method, a glob that matches nothing, a text that is too short.
    """
    some("methods", config.methods)
    from bridge.sites import linears
    from experiments import measure, moment_layers

    methods = {name: _method(name, config.budget) for name in config.methods}
    loaded = measure.loaded_model(config.reading, progress)
    materials = [measure.material(loaded, config.reading, config.sizes, progress)]
    if config.other is not None:
        other = dataclasses.replace(config.reading, text=config.other)
        materials.append(measure.material(loaded, other, config.sizes, progress))
    first = materials[0]
    with progress.task("errors", len(linears(loaded.model, config.errors))) as advance:
        layers = moment_layers.layers(
            loaded.model, methods, first.calibration, first.evaluation, config.errors, advance
        )
    read = {"dense": (1.0, _losses(loaded.model, materials, progress, "dense"))}
    for name, method in methods.items():
        read[name] = _compressed(config, loaded.model, method, materials, progress, name)
    base = read[config.methods[0]][1]
    losses = [
        Loss(name, text, density, _exp(nll.mean()), interval(nll - base[text]))
        for name, (density, found) in read.items()
        for text, nll in found.items()
    ]
    return Result(config, first.inputs, layers, losses)


def _method(name: str, budget: Budget) -> "Method":
    from experiments import roster
    from experiments.moment_layers import NearlySVD

    if name == DEFINITION:
        return dataclasses.replace(roster.oats(budget), truncation=NearlySVD())
    method = roster.build(name, budget)
    if not hasattr(method, "statistic"):
        raise BadOption(f"--methods {name}: it replaces whole components, not linears")
    return method  # type: ignore[return-value]


def _compressed(config, model, method, materials, progress, name):
    from bridge.compress import compressed
    from experiments import measure

    batches = materials[0].calibration.split(measure.AT_ONCE)
    progress.say(f"compress by {name}")
    with compressed(model, method, batches, select=config.select) as done:
        return done.density, _losses(model, materials, progress, name)


def _losses(model, materials, progress, name):
    from experiments import measure

    found = {}
    for material in materials:
        windows = material.evaluation
        with progress.task(f"{name}: {material.inputs.text}", len(windows)) as advance:
            nll = measure.window_losses(model, windows, material.bos_id, advance)
        found[material.inputs.text] = nll
    return found


def _exp(nll: float) -> float:
    # A broken model's loss can be past what exp holds.
    return float(np.exp(min(nll, 700.0)))


def sections(result: Result) -> list[Section]:
    """Losses with their intervals, then errors with the held-out ones beside."""
    base, budget = result.config.methods[0], result.config.budget
    bases = {found.text: found for found in result.losses if found.method == base}
    text = [
        _verdict(found, bases[found.text])
        for found in result.losses
        if found.method not in ("dense", base)
    ]
    rows = [
        (
            found.method,
            found.text,
            f"{found.density:.4f}",
            f"{found.ppl:.4g}",
            f"{found.above.mean:+.3f} [{found.above.low:+.3f}, {found.above.high:+.3f}]",
        )
        for found in result.losses
    ]
    losses = Table(
        ("method", "text", "density", "perplexity", f"nats a token above {base} [95%]"),
        rows,
        f"At {percent(budget.sparsity)}; paired over {result.losses[0].above.n} windows of "
        f"{result.config.sizes.context} tokens a text; calibrated on "
        f"{result.config.sizes.calibration} × {result.config.sizes.context} tokens of the first "
        f"half of {result.inputs.text}, one compressed block after the other. The draw of the "
        f"calibration text is not in the intervals.{of_few(result.losses[0].above.n)}",
    )
    return [Section("The whole second moment, at equal budget", text, [losses, _errors(result)])]


def _verdict(found: Loss, base: Loss) -> str:
    """Lower, higher, or neither: the interval says which; and what each of the two keeps."""
    change = [np.expm1(x) for x in found.above[:3]]
    spent = "" if f"{found.density:.4f}" == f"{base.density:.4f}" else (
        f" NOT at equal budget: {found.density:.4f} of the weights against {base.density:.4f}."
    )  # fmt: skip
    whose = f"the perplexity of {base.method} on {found.text}"
    if not np.isfinite(found.above.mean):
        return f"{found.method}, or {base.method}, has a loss on {found.text} that is no number."
    if not clear(found.above):
        mean, low, high = change
        return (
            f"{found.method} makes no clear difference to {whose}: "
            f"{mean:+.1%} [{low:+.1%}, {high:+.1%}], which chance can explain.{spent}"
        )
    verb = "lowers" if found.above.high < 0 else "raises"
    size, *ends = (abs(x) for x in change)
    return f"{found.method} {verb} {whose} by {size:.1%} [{min(ends):.1%}, {max(ends):.1%}].{spent}"


def _errors(result: Result) -> Table:
    rows = [
        (layer.name, *(f"{e.calibration:.3f} / {e.held_out:.3f}" for e in layer.errors))
        for layer in result.layers
    ]
    caption = (
        "Output error √(tr(E R Eᵀ) / tr(W R Wᵀ)) on the dense model's inputs: calibration tokens / "
        f"{result.config.sizes.windows} windows of the other half, which nothing was fitted to."
    )
    return Table(("linear", *result.config.methods), rows, caption)
