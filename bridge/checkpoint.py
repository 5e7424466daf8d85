"""Save a compressed model: whole, verified, or not at all. In one of three forms.

dense: every operator is folded back into a linear, so any tool that loads the family loads the
result. It is as large and as fast as the original; zeros are stored as zeros.
packed: operators as they are stored (`bridge.packed`), read after `import bridge`.
base+lora: the low-rank terms as a PEFT adapter, the rest dense (`bridge.adapter`).
"""

import errno
import fcntl
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from bridge import adapter, manifest
from bridge.card import write_card
from bridge.fold import folded
from bridge.manifest import content_hash, verify
from bridge.opened import closed
from bridge.packed import achieved
from bridge.quantizer import PackedQuantizer, configuration
from bridge.sites import operators, show
from bridge.toggle import swap
from mech.disk import as_the_system_says, flush
from mech.errors import BadInput
from mech.ondisk import on_disk
from mech.quiet import quiet
from mech.refusals import first_line

Form = Literal["dense", "base+lora", "packed"]
__all__ = ["Form", "content_hash", "reread", "save", "save_dense", "verify"]


def save(
    model: Any,
    tokenizer: Any | None,
    folder: Path | str,
    provenance: Mapping[str, Any],
    *,
    form: Form = "dense",
    max_shard_size: str = "5GB",
) -> Path:
    """Write `folder` with Hugging Face's own files, and `manifest.json` beside them.

    The manifest holds the SHA-256 and size of every file, a hash of all tensors by content, what
    each compressed linear stores in this form, and `provenance` as it is given (plain JSON
    values). Everything is written to a temporary folder beside `folder`, loaded again, compared
    with the model in memory by that hash and by those counts, and only then renamed. The model
    is left as it was. Terms that are switched off are saved as zero, packed ones as switched off.

    Raises BadInput where `folder` exists, where an operator has no matrix or no such form, or
    where what was loaded again is not what was saved; OSError where the disk refuses. Nothing is
    left behind but the folders above `folder`, which are made where they are missing.
    """
    folder = checked(folder, provenance, form)
    if on_disk(model):
        raise BadInput("the model's weights are on disk: bridge.assembled saves what shards keep")
    with whole_folder(folder) as partial:
        base = base_of(partial, form)
        with _standing(model, form, partial) as layers, quiet():
            # As the model names its tensors: what a family renames or merges in its files is
            # made of linears, and would not be found in operators.
            original = {"save_original_format": False} if form == "packed" else {}
            model.save_pretrained(base, max_shard_size=max_shard_size, **original)
            says = {"tensors": content_hash(model), "layers": layers}
        if tokenizer is not None:
            tokenizer.save_pretrained(base)
        write_card(partial, form)
        manifest.write(partial, form=form, **says, provenance=dict(provenance))
        _same(type(model), base, says, folder)
    return folder


def reread(folder: Path | str) -> dict[str, Any]:
    """The manifest of a folder whose files, tensors and counts are those that were saved.

    Loads the model, which `verify` does not. Raises BadInput where anything differs.
    """
    folder = Path(folder)
    said = verify(folder)
    if said.get("format") != manifest.FORMAT:
        raise BadInput(
            f"{folder} was saved by another version: its files are whole, no more is known"
        )
    if not _complete(said):
        raise BadInput(f"{folder / manifest.MANIFEST} is damaged: save the model again")
    says = {"tensors": said["tensors"], "layers": said["layers"]}
    try:
        _same(AutoModelForCausalLM, base_of(folder, said["form"]), says, folder)
    except BadInput:
        raise
    except Exception as error:  # whatever a family makes of a configuration that cannot be
        raise BadInput(f"the model in {folder} cannot be read: {first_line(error)}") from error
    return said


def _complete(said: Mapping[str, Any]) -> bool:
    """Whether a manifest says all that it has to, in the types that it has to."""
    kinds = {"form": str, "tensors": str, "files": dict, "layers": dict, "provenance": dict}
    if not all(isinstance(said.get(key), kind) for key, kind in kinds.items()):
        return False
    counts = {"parameters", "kept", "bits"}
    return (
        said["form"] in get_args(Form)
        and bool(said["files"])
        and all(
            isinstance(layer, dict)
            and layer.keys() == counts
            and all(type(count) is int for count in layer.values())
            for layer in said["layers"].values()
        )
    )


def save_dense(
    model: Any, tokenizer: Any | None, folder: Path | str, provenance: Mapping[str, Any]
) -> Path:
    """`save` in the form that any tool loads."""
    return save(model, tokenizer, folder, provenance, form="dense")


def checked(folder: Path | str, provenance: Mapping[str, Any], form: str) -> Path:
    """The folder as an absolute path.

    Raises BadInput where it exists, and where the form or the provenance is none.
    """
    folder = Path(folder).absolute()
    if form not in get_args(Form):
        raise BadInput(f"no form called {form!r} (there are {', '.join(get_args(Form))})")
    if folder.exists():
        raise BadInput(f"{folder} exists: choose another folder or remove it")
    try:
        json.dumps(dict(provenance), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"provenance: plain JSON values only ({error})") from error
    return folder


def base_of(folder: Path, form: str) -> Path:
    """Where the model itself lies: beside its adapter, where it has one."""
    return folder / adapter.BASE if form == "base+lora" else folder


def _same(kind: Any, base: Path, says: Mapping[str, Any], folder: Path) -> None:
    with quiet():
        again = kind.from_pretrained(base, dtype="auto", local_files_only=True)
    tensors = content_hash(again)
    show(again, says["layers"])
    told = says["layers"].keys() >= operators(again).keys()
    if not told or {"tensors": tensors, "layers": achieved(again, says["layers"])} != says:
        raise BadInput(f"{folder}: what was written does not load as what was in memory")


@contextmanager
def _standing(model: Any, form: Form, folder: Path) -> Iterator[dict[str, dict[str, int]]]:
    """Inside, `model` is what `save_pretrained` has to write; gives what its linears store."""
    names = list(operators(model))
    with ExitStack() as stack:
        if form == "packed":
            stack.enter_context(
                _quantizer(model, PackedQuantizer(configuration(model), manifest=True))
            )
        else:
            stack.enter_context(_quantizer(model, None))
            linears = folded(model) if form == "dense" else _adapted(model, folder)
            stack.enter_context(swap(model, linears))
        layers = achieved(model, names)
        if form != "packed":
            stack.enter_context(closed(model))
        yield layers


def _adapted(model: Any, folder: Path) -> Mapping[str, Any]:
    linears, terms = adapter.split(model)
    adapter.write(model, terms, folder / adapter.ADAPTER)
    return linears


@contextmanager
def _quantizer(model: Any, quantizer: PackedQuantizer | None) -> Iterator[None]:
    """transformers' own mark of a packed model, set or taken away inside, and as it was after."""
    marks = ((model, "hf_quantizer"), (model.config, "quantization_config"))
    before = [(owner, key, vars(owner).pop(key)) for owner, key in marks if key in vars(owner)]
    if quantizer is not None:
        model.hf_quantizer = quantizer
    try:
        yield
    finally:
        for owner, key in marks:
            vars(owner).pop(key, None)
        for owner, key, value in before:
            setattr(owner, key, value)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its name when all went well, and is gone when not.

    Raises OSError, naming `folder`, where the disk refuses.
    """
    with _clear_errors(folder), ExitStack() as stack:
        folder.parent.mkdir(parents=True, exist_ok=True)
        begun = f".{folder.name}.partial-"
        for left in folder.parent.glob(f"{glob.escape(begun)}*"):
            _forget_the_dead(left)
        partial = Path(tempfile.mkdtemp(prefix=begun, dir=folder.parent))
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        stack.enter_context(_held(partial))
        yield partial
        partial.chmod(0o755)
        partial.rename(folder)
        flush(folder.parent)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Whether `folder` is ours inside; the kernel lets go of what a process that died held."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another's, or a disk that knows no locks: then nothing is removed
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _forget_the_dead(partial: Path) -> None:
    """Remove what a save that was killed left, which is as large as a model."""
    with suppress(OSError), _held(partial) as dead:
        if dead:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    try:
        with as_the_system_says():
            yield
    except SafetensorError as error:
        reason = f"cannot write {folder}: {error}; nothing was left behind"
        raise OSError(errno.EIO, reason) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno, f"cannot write {folder}: {reason}; nothing was left behind"
        ) from error
