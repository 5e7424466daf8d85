"""What is installed, which kernels run here, where the demo model is, and what would fail."""

import importlib
import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from rich.table import Table
from rich.text import Text

from experiments import store
from experiments.progress import paper

OPS = ("hard_threshold",)
NEEDED = ("torch", "transformers", "gguf", "safetensors", "jax", "flax", "optax", "numba")
DEMO_BYTES = 2 * 2**30  # the converted model, and room for a run


@dataclass(frozen=True)
class Config:
    """Look, change nothing."""


class Finding(NamedTuple):
    """One line: good, good to know, or something that would fail."""

    state: Literal["ok", "note", "fails"]
    what: str
    detail: str


def main(config: Config) -> int:
    """Print the findings; exit code 1 when something would fail."""
    findings = [*_libraries(), *_devices(), *_kernels(), *_demo_model(), *_folders(), *_network()]
    table = Table("", "what", "", box=None, pad_edge=False)
    colour = {"ok": "green", "note": "yellow", "fails": "red"}
    for finding in findings:
        state = Text(finding.state, style=colour[finding.state])
        table.add_row(state, finding.what, finding.detail)
    paper().print(table)
    return int(any(finding.state == "fails" for finding in findings))


def _libraries() -> Iterator[Finding]:
    yield Finding("ok", "python", sys.version.split()[0])
    for library in NEEDED:
        try:
            importlib.import_module(library)
            yield Finding("ok", library, importlib.metadata.version(library))
        except ImportError as error:
            yield Finding("fails", library, f"{error}; run `sh scripts/setup`")


def _devices() -> Iterator[Finding]:
    import torch

    accelerator = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    if accelerator is None:
        yield Finding("note", "accelerator", "none; everything runs on the CPU")
    else:
        yield Finding("ok", "accelerator", f"{accelerator}; pass --device {accelerator.type}")
    yield Finding("ok", "threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")


def _kernels() -> Iterator[Finding]:
    """Every implementation of every op is run on a small input and held against its definition."""
    import torch

    from ctr_kernels.op import Unsupported

    for name in OPS:
        op = getattr(importlib.import_module(f"ctr_kernels.{name}"), name)
        for backend in ("reference", *op.kernels):
            x = torch.randn(3, 37, generator=torch.Generator().manual_seed(0))
            on_gpu = backend == "triton" and torch.cuda.is_available()
            try:
                got = op.on(backend)(x.cuda() if on_gpu else x, 5).cpu()
            except (Unsupported, RuntimeError) as error:
                reason = str(error).splitlines()[0]
                yield Finding("note", f"{name} on {backend}", f"not here: {reason}")
                continue
            if torch.equal(got, op.reference(x, 5)):
                how = "interpreter, slow" if backend == "triton" and not on_gpu else "runs"
                yield Finding("ok", f"{name} on {backend}", f"{how}, equals its definition")
            else:
                yield Finding("fails", f"{name} on {backend}", "differs from its definition")


def _demo_model() -> Iterator[Finding]:
    from mech import gguf, source
    from mech.errors import BadInput

    try:
        file = source.demo_file("smollm2")
    except BadInput as error:
        yield Finding("fails", "demo model", str(error))
        return
    yield Finding("ok", "demo model", str(file))
    place = gguf.place_of(file)
    if place.is_dir():
        yield Finding("ok", "converted", str(place))
    else:
        yield Finding("note", "converted", "not yet; the first use takes about a minute")


def _folders() -> Iterator[Finding]:
    from mech import gguf

    for what, folder in (("cache", gguf.cache_folder()), ("run store", store.store_path().parent)):
        nearest = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(nearest).free
        if not _writable(nearest):
            yield Finding("fails", what, f"cannot write in {nearest}")
        elif free < DEMO_BYTES:
            yield Finding("fails", what, f"{folder}: only {free / 2**30:.1f} GiB free")
        else:
            yield Finding("ok", what, f"{folder} ({free / 2**30:.0f} GiB free)")


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _network() -> Iterator[Finding]:
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        yield Finding("note", "model hub", "HF_HUB_OFFLINE=1: hub names work only when cached")
    else:
        yield Finding("ok", "model hub", "asked when a hub name is given (not tried now)")
    data = os.environ.get("CTR_DATA")
    if data is None:
        yield Finding("note", "CTR_DATA", "not set: tests marked `data` look beside the checkout")
    else:
        state = "ok" if Path(data).is_dir() else "fails"
        yield Finding(state, "CTR_DATA", data)
