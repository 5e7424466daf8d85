"""`ctr plan`: what a compression will take, from config.json alone."""

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.table import Table

from experiments import provenance, roster, serial
from experiments.planning.names import METHODS
from experiments.progress import paper
from experiments.saving import Form
from experiments.settings import BadOption, Budget, Sizes, some, within


@dataclass(frozen=True)
class Config:
    """Memory, disk and time of `ctr compress`, told before it runs."""

    model: tyro.conf.Positional[str] = "smollm2"
    """A folder that holds config.json (weights are not needed), such a file, or smollm2."""
    method: tuple[str, ...] = METHODS
    """Methods, as `ctr compress` calls them."""
    budget: Budget = field(default_factory=Budget)
    sizes: Sizes = field(default_factory=Sizes)
    select: str = "*"
    """Which linears, as a glob over names like layers.3.self_attn.q_proj."""
    form: Form = "dense"
    """The form that is saved: memory and time depend on it; disk is told of all."""
    ranks: tuple[int, ...] = (1,)
    """Processes that share the work: a line for each number."""
    on_disk: bool = False
    """Weights stay in their folder, one block in memory."""
    measure: bool = False
    """Measure this machine again: a few seconds a method. Rates are kept under ~/.cache."""
    json: bool = False
    """Everything as JSON on standard output."""


def main(config: Config) -> int:
    """Print the plan; exit code 0.

    Raises:
        BadOption, BadInput: a method, a number or a model that cannot be planned for.
    """
    _check(config)
    base = _base()
    imported = time.process_time()
    from experiments.planning import rates
    from experiments.planning.plan import plan
    from experiments.planning.shapes import shape_of

    methods = {name: roster.build(name, config.budget) for name in config.method}
    shape = shape_of(_folder(config.model), config.select)
    file = rates.kept()
    known = rates.read(file)
    missing = [name for name in methods if known is None or name not in known.methods]
    if config.measure:
        from experiments.planning.timed import measured

        earlier = {} if known is None else known.methods
        known = measured(list(methods), config.budget, imported, _tell)
        known = dataclasses.replace(known, methods={**earlier, **known.methods})
        rates.write(file, known)
    plans = [
        plan(shape, name, method, config.sizes, known, rates.base(known, name) or base, config.form,
             ranks=ranks, on_disk=config.on_disk)
        for name, method in methods.items()
        for ranks in config.ranks
        if config.form != "base+lora" or name not in roster.WITHOUT_LOW_RANK
    ]  # fmt: skip
    if config.json:
        sys.stdout.write(serial.dumps({"model": shape._asdict() | {"blocks": len(shape.blocks)},
                                       "plans": plans}))  # fmt: skip
        return 0
    _print(shape, plans)
    if not config.measure and missing:
        _tell(f"no time for {', '.join(missing)}: --measure measures this machine once")
    return 0


def _check(config: Config) -> None:
    some("method", config.method)
    some("ranks", config.ranks)
    for ranks in config.ranks:
        within("ranks", ranks, 1)
    within("calibration", config.sizes.calibration, 1)
    within("context", config.sizes.context, 3)
    for name in config.method:
        roster.refuse(name, config.budget)
        if name not in METHODS:
            raise BadOption(
                f"--method {name}: what it spends is known only when it has run; "
                f"plan one of {', '.join(METHODS)}"
            )


def _folder(model: str) -> Path | str:
    from mech import source

    path = Path(model).expanduser()
    return source.resolve(model).folder if model in source.DEMO or path.suffix == ".gguf" else path


def _base() -> int:
    """Bytes of a process that has imported what `ctr compress` imports, and done nothing."""
    from bridge import adapter, checkpoint, compress, shards  # noqa: F401
    from experiments import measure, report  # noqa: F401

    return provenance.peak_memory()


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _print(shape, plans: Sequence) -> None:  # type: ignore[no-untyped-def]
    console = paper()
    count = len(shape.linears)
    console.print(
        f"{shape.name}: {shape.numbers / 1e6:.1f} million numbers, {len(shape.blocks)} blocks, "
        f"{count} linears; {size(shape.weights)} in float32"
    )
    table = Table(
        *("method", "ranks", "memory", "at its most", "dense", "packed", "base+lora", "shards"),
        "time",
        box=None,
    )
    for one in plans:
        stages = one.memory.stages
        lora = one.disk.base_and_adapter
        table.add_row(
            one.method,
            str(one.ranks),
            size(one.memory.peak),
            max(stages, key=stages.__getitem__),
            size(one.disk.dense),
            size(one.disk.packed),
            "–" if lora is None else size(lora),
            size(one.disk.shards),
            "–" if one.seconds is None else duration(one.seconds.total),
        )
    console.print(table)
    console.print(
        "Memory: of each rank, resident at its most. Disk: tensors of each form. Time: of one "
        "thread that has its core to itself.",
        style="dim",
    )


def size(count: int) -> str:
    """Bytes in words."""
    if count < 2**30:
        return f"{count / 2**20:.0f} MiB"
    return f"{count / 2**30:.2f} GiB"


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
