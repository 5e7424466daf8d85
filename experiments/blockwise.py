"""`ctr compress --on-disk`: where blocks that are done wait until the model is assembled."""

import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.saving import Target, writable
from experiments.settings import BadOption

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from torch import nn

    from bridge.ranks import TorchRanks


def with_shards(target: Target, on_disk: bool) -> Target:
    """The target, with a folder for shards beside OUT where weights stay on disk and none is given.

    Raises:
        BadOption: neither OUT nor --shards says where operators could be kept.
    """
    if not on_disk or target.shards is not None:
        return target
    if target.folder is None:
        raise BadOption("--on-disk: say where to, as OUT or --shards: operators are kept on disk")
    shards = target.folder.with_name(f"{target.folder.name}.shards")
    writable("--on-disk", shards)
    return replace(target, shards=shards)


def spill(target: Target, on_disk: bool, ranks: "TorchRanks | None") -> Path | None:
    """Where the calibration text waits between blocks: in memory, or in a folder of each rank."""
    if not on_disk or target.shards is None:
        return None
    rank = 0 if ranks is None else ranks.rank
    return target.shards / f"stream-{rank}"


def compressed(model: "nn.Module", shards: Path | None) -> AbstractContextManager[None]:
    """Inside, a model on disk runs compressed; one in memory does so anyway."""
    from bridge.dressed import worn
    from bridge.shards import Shards
    from mech.ondisk import on_disk

    if not on_disk(model):
        return nullcontext()
    assert shards is not None
    return worn(model, Shards(shards).joined())


def drop(used: Target, asked: Target) -> None:
    """Remove the shards that nobody asked to keep, once the model is whole."""
    if used.shards is not None and asked.shards is None:
        shutil.rmtree(used.shards, ignore_errors=True)
