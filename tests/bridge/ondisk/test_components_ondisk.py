"""Methods of whole components on disk: shards and folders are those of the model in memory."""

import pytest
import torch

from bridge.assembled import save_assembled
from bridge.checkpoint import Form, save
from bridge.compress import compress
from bridge.methods.a3 import A3
from bridge.methods.oats import OATS
from bridge.methods.sink_heads import SinkHeads
from bridge.methods.wanda import Wanda
from bridge.protected import Protected
from bridge.shards import Shards
from bridge.sink_tokens import FIRST, LATER, ORDINARY
from mech.load import load

from .test_assembled import tensors
from .test_compress_ondisk import no_clock, plain, shards_of

_ = no_clock  # a fixture, used by its name


def labels(batches):
    """First tokens, one later sink a window, and ordinary ones."""
    found = []
    for tokens in batches:
        label = torch.full_like(tokens, ORDINARY)
        label[:, 0], label[:, 7] = FIRST, LATER
        found.append(label)
    return found


METHODS = {
    "a3": lambda _: A3(0.3),
    "sink-heads": lambda _: SinkHeads(((0, 1), (1, 0), (1, 1), (1, 2), (2, 5)), columns=5),
    "protected": lambda batches: Protected(OATS(iterations=3), labels(batches)),
    "protected-wanda": lambda batches: Protected(Wanda(), labels(batches)),
}
FORMS: dict[str, tuple[Form, ...]] = {"protected": ("dense", "packed", "base+lora")}
USUAL: tuple[Form, ...] = ("dense", "packed")
# Gemma 2 has windows, and norms that stand elsewhere; no family that keeps projections fused.
CASES = [("llama", name) for name in METHODS] + [("gemma2", "a3"), ("gemma2", "protected-wanda")]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_as_in_memory_byte_for_byte(family, name, folders, batches, tmp_path, monkeypatch):
    folder, method = folders(family), METHODS[name](batches)
    disk, memory = load(str(folder), on_disk=True), load(str(folder))
    shards = Shards(tmp_path / "disk")
    one = compress(disk.model, method, batches, shards=shards)
    two = compress(memory.model, method, batches, shards=Shards(tmp_path / "memory"))
    assert plain(one.rows) == plain(two.rows)
    assert one.left == two.left
    assert shards_of(tmp_path / "disk") == shards_of(tmp_path / "memory")
    assert all(tensor.is_meta for tensor in disk.model.parameters())
    for form in FORMS.get(name, USUAL):
        ours, theirs = tmp_path / f"{form}-disk", tmp_path / f"{form}-memory"
        save_assembled(disk.model, shards, disk.tokenizer, ours, {"n": 1}, form=form)
        save(memory.model, memory.tokenizer, theirs, {"n": 1}, form=form)
        for inside in (".", "base", "adapter"):
            assert tensors(ours / inside) == tensors(theirs / inside)
    # Again: everything is found, nothing is calibrated.
    monkeypatch.setattr("bridge.walk._calibrated", lambda *_: pytest.fail("calibrated again"))
    again = compress(disk.model, method, batches, shards=shards)
    assert plain(again.rows) == plain(two.rows)
