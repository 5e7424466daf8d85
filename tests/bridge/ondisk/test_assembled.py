"""What is assembled from shards and the source folder is what `save` writes from memory."""

import pytest

import bridge  # noqa: F401  for the packed form
from bridge.assembled import save_assembled
from bridge.checkpoint import reread, save
from bridge.compress import compress
from bridge.fingerprint import raw
from bridge.shards import Shards
from mech.load import load
from mech.shards import stored

from .conftest import FAMILIES, METHODS

FORMS = ("dense", "packed", "base+lora")
CASES = [
    ("llama", "oats", "dense"), ("llama", "oats", "packed"), ("llama", "oats", "base+lora"),
    ("mixtral", "wanda", "dense"), ("mixtral", "wanda", "packed"),
    ("gpt2", "oats", "base+lora"), ("gpt2", "wanda", "packed"), ("gemma2", "gptq", "dense"),
]  # fmt: skip
assert {family for family, _, _ in CASES} == set(FAMILIES)


def both(folder, method, batches, tmp_path, form, **more):
    disk, memory = load(str(folder), on_disk=True), load(str(folder))
    shards = Shards(tmp_path / "shards")
    compress(disk.model, method, batches, shards=shards)
    compress(memory.model, method, batches)
    size = {"max_shard_size": "30kB"}
    one = save_assembled(
        disk.model, shards, disk.tokenizer, tmp_path / "disk", {"n": 1}, form=form, **size
    )
    two = save(memory.model, memory.tokenizer, tmp_path / "memory", {"n": 1}, form=form, **size)
    return disk.model, one, two


def tensors(folder):
    found = stored(sorted(folder.glob("*.safetensors")))
    return {name: (t.dtype, t.shape, bytes(raw(t[...]))) for name, t in found.items()}


@pytest.mark.parametrize(("family", "name", "form"), CASES)
def test_the_folder_is_that_of_the_model_in_memory_byte_for_byte(
    family, name, form, folders, batches, tmp_path
):
    model, one, two = both(folders(family), METHODS[name], batches, tmp_path, form)
    reread(one)
    assert all(tensor.is_meta for tensor in model.parameters())
    assert not hasattr(model.config, "quantization_config")
    if (family, form) == ("mixtral", "dense"):
        # Views of one stack are split over files in another way: there it is tensor for tensor.
        assert tensors(one) == tensors(two)
        return
    files = {p.relative_to(two).as_posix(): p for p in two.rglob("*") if p.is_file()}
    assert {p.relative_to(one).as_posix() for p in one.rglob("*") if p.is_file()} == set(files)
    assert sum(name.endswith(".safetensors") for name in files) > 2
    for name, file in files.items():
        assert (one / name).read_bytes() == file.read_bytes(), name
