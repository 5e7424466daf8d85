"""A checkpoint made of shards and of the folder that the model came from, a block in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from bridge import manifest
from bridge.block_files import Files
from bridge.card import write_card
from bridge.checkpoint import Form, base_of, checked, whole_folder
from bridge.manifest import content_hash
from bridge.seams import Shards
from mech.errors import BadInput
from mech.ondisk import model_on_disk
from mech.quiet import quiet


def save_assembled(
    model: PreTrainedModel,
    shards: Shards,
    tokenizer: Any | None,
    folder: Path | str,
    provenance: Mapping[str, Any],
    *,
    form: Form = "dense",
    max_shard_size: str = "5GB",
) -> Path:
    """`bridge.checkpoint.save` of the compressed model, tensor for tensor, a block in memory.

    `model` is the one on disk that was compressed into `shards`, in this process or by another:
    where by another, `shards.joined()`. Memory: one block dense and compressed, or the
    vocabulary head. Every tensor is read back from the files and compared; a dense form is also
    opened again and hashed. Nothing is left behind where it fails. Errors as `save` raises them.
    """
    folder = checked(folder, provenance, form)
    with whole_folder(folder) as partial, quiet():
        base = base_of(partial, form)
        base.mkdir(exist_ok=True)
        made = Files(model, shards, partial, form)
        made.write(max_shard_size)
        if tokenizer is not None:
            tokenizer.save_pretrained(base)
        write_card(partial, form)
        says = {"tensors": made.tensors, "layers": made.layers}
        manifest.write(partial, form=form, **says, provenance=dict(provenance))
        if form != "packed":
            again = model_on_disk(
                base, sorted(base.glob("*.safetensors")), model.dtype, model.device
            )
            if content_hash(again) != made.tensors:
                raise BadInput(f"{folder}: what was written does not load as what was in memory")
    return folder
