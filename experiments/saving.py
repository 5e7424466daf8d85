"""Saving what `ctr compress` made: in which form, with what provenance, in how many bytes."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro

from experiments.report import Table
from experiments.settings import BadOption

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from torch import Tensor, nn

    from bridge.compression import Compression
    from experiments.compress import Result
    from mech.load import Loaded

Form = Literal["dense", "base+lora", "packed"]


class Stored(NamedTuple):
    """Bytes of the weight files in a form; `dense`: of all tensors of the model as it was."""

    form: str
    bytes: int
    dense: int


@dataclass(frozen=True)
class Target:
    """Where the compressed model goes, and in which form."""

    into: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[OUT]")] = None
    """A new folder for the compressed model; without one it is measured, and not kept."""
    save: Path | None = None
    """The same folder as an option."""
    form: Form = "dense"
    """dense loads anywhere and is as large as before; base+lora is for PEFT; packed is small, and
    loads after `import bridge`."""
    shards: Path | None = None
    """Keep every block that is done in this folder: a run that was killed goes on there."""

    @property
    def folder(self) -> Path | None:
        """The one that was given."""
        return self.into or self.save

    def check(self) -> None:
        """Refuse, before the work, a place where its result could not be kept.

        Raises BadOption where two folders are given, or a form and none, where the folder is
        taken, or cannot be made, or would hold the shards.
        """
        if self.into is not None and self.save is not None:
            raise BadOption(f"OUT {self.into} and --save {self.save}: give one of them")
        if self.folder is None and self.form != "dense":
            raise BadOption(f"--form {self.form}: say where to: ctr compress MODEL OUT")
        if self.folder is None:
            return
        new("OUT", self.folder)
        if self.shards is not None and self.shards.resolve().is_relative_to(self.folder.resolve()):
            raise BadOption(f"--shards {self.shards} lies in OUT {self.folder}; choose another")


def new(option: str, folder: Path) -> None:
    """Raises BadOption where the folder is there, or could not be made."""
    if os.path.lexists(folder):  # a link to nowhere is something too
        raise BadOption(f"{option} {folder} exists; choose another folder or remove it")
    writable(option, folder)


def writable(option: str, folder: Path) -> None:
    """Raises BadOption where nothing could be written into the folder, be it there or not."""
    path = folder.absolute()
    above = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise BadOption(f"{option} {folder}: {above} is no folder that can be written")


def nbytes(model: "nn.Module") -> int:
    """Of all tensors, each once: a tied head is stored once."""
    from mech.ondisk import on_disk

    if on_disk(model):  # where none has an address
        places = (*model.parameters(), *model.buffers())
        return sum(tensor.nbytes for tensor in places if tensor.is_meta)
    return sum({t.data_ptr(): t.nbytes for t in model.state_dict().values()}.values())


def save(loaded: "Loaded", target: Target, provenance: dict[str, Any], dense: int) -> Stored:
    """Write the folder; `dense` is what `nbytes` said of the model before.

    Raises:
        BadInput: the folder exists, or the method leaves nothing for this form.
        OSError: the disk refuses. Nothing is left behind then.
    """
    from bridge import assembled, checkpoint
    from bridge.shards import Shards
    from mech.ondisk import on_disk

    assert target.folder is not None
    if on_disk(loaded.model):
        assert target.shards is not None
        folder = assembled.save_assembled(
            loaded.model,
            Shards(target.shards).joined(),
            loaded.tokenizer,
            target.folder,
            provenance,
            form=target.form,
        )
    else:
        folder = checkpoint.save(
            loaded.model, loaded.tokenizer, target.folder, provenance, form=target.form
        )
    files = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    return Stored(target.form, files, dense)


def provenance(result: "Result", done: "Compression", calibration: "Tensor") -> dict[str, Any]:
    """What the manifest keeps: options, inputs, calibration ids, what each linear became."""
    from experiments.provenance import versions
    from experiments.serial import plain

    return {
        "method": done.method,
        "config": plain(result.config),
        "inputs": plain(result.inputs),
        "calibration": {
            "shape": list(calibration.shape),
            "sha256": hashlib.sha256(calibration.contiguous().numpy().data).hexdigest(),
            "first_ids": calibration[:, :8].tolist(),
        },
        "weights": plain(result.weights),
        "rows": {row.name: plain(row) for row in done.rows},
        "left_dense": list(done.left),
        "versions": versions(),
    }


def table(stored: Stored) -> Table:
    """Bytes on disk, beside the model as it was."""
    row = (stored.form, _mebibytes(stored.bytes), _mebibytes(stored.dense))
    return Table(
        ("saved as", "weight files", "before", "share"),
        [(*row, f"{stored.bytes / stored.dense:.1%}")],
        "Embeddings, head and norms are in both and are never compressed. A packed matrix is its "
        "values, a bit a place, and its factors; a dense one stores its zeros.",
    )


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
