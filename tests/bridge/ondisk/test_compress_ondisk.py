"""A model whose weights stay in its folder is compressed as one in memory is, bit for bit."""

import pytest
from safetensors import safe_open

from bridge.compress import compress
from bridge.fingerprint import raw
from bridge.manifest import content_hash
from bridge.shards import Shards
from mech.load import load
from mech.ondisk import on_disk

from .conftest import FAMILIES, METHODS


def shards_of(folder):
    """Every byte that a shard has of its own: safetensors writes notes in any order."""
    found = {"run.json": (folder / "run.json").read_bytes()}
    for file in sorted(folder.glob("block-*")):
        with safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            layout = {key: (t.dtype, t.shape, bytes(raw(t))) for key, t in tensors.items()}
            found[file.name] = (dict(opened.metadata()), layout)
    return found


def plain(rows):
    return [row._replace(seconds=0.0) for row in rows]


@pytest.fixture(autouse=True)
def no_clock(monkeypatch):
    """Shards hold the seconds that each linear took: without a clock their bytes can agree."""
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)


CASES = [*((family, "wanda") for family in FAMILIES), ("llama", "gptq"), ("mixtral", "oats")]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_shards_are_those_of_the_model_in_memory_byte_for_byte(
    family, name, folders, batches, tmp_path
):
    folder, method = folders(family), METHODS[name]
    disk, memory = load(str(folder), on_disk=True).model, load(str(folder)).model
    assert on_disk(disk)
    assert not on_disk(memory)
    state = content_hash(memory)
    assert content_hash(disk) == state
    one = compress(disk, method, batches, shards=Shards(tmp_path / "disk"))
    two = compress(memory, method, batches, shards=Shards(tmp_path / "memory"))
    assert plain(one.rows) == plain(two.rows)
    assert one.left == two.left
    assert shards_of(tmp_path / "disk") == shards_of(tmp_path / "memory")
    assert all(tensor.is_meta for tensor in disk.parameters())
    assert content_hash(disk) == state  # dense again
    assert content_hash(memory) != state
