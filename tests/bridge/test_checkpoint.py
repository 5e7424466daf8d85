"""A checkpoint is whole and verified, or it is not there."""

import errno
import fcntl
import hashlib
import json
import os
import resource

import pytest
import torch

from bridge import checkpoint, manifest
from bridge.checkpoint import content_hash, reread, save, save_dense, verify
from bridge.compress import compress
from bridge.methods.oats import OATS
from bridge.operators import LowRank
from bridge.sites import operators
from bridge.toggle import without
from mech.errors import BadInput


@pytest.fixture
def oats(llama, batches):
    compress(llama, OATS(), batches)
    return llama


def test_what_is_loaded_is_what_was_saved(oats, batches, tmp_path):
    with torch.no_grad():
        before = oats(batches[0]).logits
    names = list(operators(oats))
    folder = save_dense(oats, None, tmp_path / "deep" / "model", {"seed": 3, "method": "oats"})
    again = type(oats).from_pretrained(folder, local_files_only=True)
    with torch.no_grad():
        after = again(batches[0]).logits
    # S x + L x in two products, and in one.
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert list(operators(oats)) == names
    with torch.no_grad():
        assert torch.equal(oats(batches[0]).logits, before)


def test_the_manifest_says_everything(oats, tmp_path):
    folder = save_dense(oats, None, tmp_path / "model", {"seed": 3})
    said = verify(folder)
    assert said["provenance"] == {"seed": 3}
    files = {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert set(said["files"]) == files >= {"config.json", "model.safetensors"}
    assert said["tensors"] == content_hash(type(oats).from_pretrained(folder))
    assert list(tmp_path.iterdir()) == [folder]


def test_a_flipped_byte_and_a_missing_file_are_found(oats, tmp_path):
    folder = save_dense(oats, None, tmp_path / "model", {})
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BadInput, match=r"model\.safetensors is not the file"):
        verify(folder)
    weights.unlink()
    with pytest.raises(BadInput, match=r"model\.safetensors is missing"):
        verify(folder)
    with pytest.raises(BadInput, match="no manifest"):
        verify(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3}', '{"files": {"a": {}}}'])
def test_a_manifest_that_is_damaged_is_named(content, tmp_path):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(BadInput, match=r"manifest\.json cannot be read"):
        verify(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"form": 3}, {"form": "zip"}, {"tensors": None}, {"provenance": [1]}, {"files": {}},
        {"layers": [1]}, {"layers": {"layers.0.mlp.up_proj": 1}},
        {"layers": {"layers.99.mlp.up_proj": {"parameters": 1, "kept": 1, "bits": 1}}},
        {"layers": {"layers.0.mlp.up_proj": {"parameters": 1, "kept": 1, "bits": True}}},
        {"layers": {"layers.0.mlp.up_proj": {"parameters": 0, "kept": 10**400, "bits": 1}}},
    ],
)  # fmt: skip
def test_a_manifest_that_says_something_else_is_refused_in_a_line(oats, tmp_path, changes):
    folder = save(oats, None, tmp_path / "model", {}, form="packed")
    reread(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    with pytest.raises(BadInput) as refused:
        reread(folder)
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)


def test_packed_layers_that_are_not_told_of_are_found(oats, tmp_path):
    folder = save(oats, None, tmp_path / "model", {}, form="packed")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"layers": {}}))
    with pytest.raises(BadInput, match="does not load as"):
        reread(folder)


def test_a_configuration_that_cannot_be_is_refused_in_a_line(oats, tmp_path):
    """Its own sum is right: somebody wrote both."""
    folder = save(oats, None, tmp_path / "model", {})
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_size": -3}))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["config.json"]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="cannot be read"):
        reread(folder)


def test_bytes_and_names_are_on_the_disk_before_and_after_the_rename(oats, tmp_path, monkeypatch):
    flushed = []
    for module in (checkpoint, manifest):
        monkeypatch.setattr(module, "flush", lambda path: flushed.append((path, path.exists())))
    folder = save_dense(oats, None, tmp_path / "model", {})
    *written, parent = [path for path, _ in flushed]
    assert {path.name for path in written[:-1]} == {path.name for path in folder.iterdir()}
    assert written[-1].name.startswith(".model.")
    assert parent == tmp_path


def test_a_term_that_is_off_is_saved_as_zero(oats, tmp_path):
    with without(oats, LowRank):
        folder = save_dense(oats, None, tmp_path / "model", {})
    again = type(oats).from_pretrained(folder)
    row = again.model.layers[0].mlp.up_proj.weight.count_nonzero(1)
    assert row.tolist() == [int(0.375 * 36)] * 52


def test_half_precision_and_tied_heads_survive(families, batches, tmp_path):
    gemma = families["gemma2"]().to(torch.bfloat16)
    assert gemma.config.tie_word_embeddings
    compress(gemma, OATS(), batches, select="*.mlp.*")
    folder = save_dense(gemma, None, tmp_path / "model", {})
    again = type(gemma).from_pretrained(folder, dtype="auto")
    assert again.dtype == torch.bfloat16
    assert again.lm_head.weight.data_ptr() == again.model.embed_tokens.weight.data_ptr()


def nothing_is_left(tmp_path, model, names):
    return not list(tmp_path.iterdir()) and list(operators(model)) == names


def test_a_full_disk_leaves_nothing(oats, tmp_path, monkeypatch):
    names = list(operators(oats))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(manifest, "write", full)
    with pytest.raises(OSError, match=r"cannot write .*model: No space left") as caught:
        save_dense(oats, None, tmp_path / "model", {})
    assert caught.value.errno == errno.ENOSPC
    assert nothing_is_left(tmp_path, oats, names)


def test_what_a_kill_left_is_removed_and_what_another_writes_is_not(oats, tmp_path):
    """A lock says which: the kernel lets go of it with the process."""
    dead, alive = tmp_path / ".model.partial-dead", tmp_path / ".model.partial-alive"
    other = tmp_path / ".models.partial-dead"
    for folder in (dead, alive, other):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
    descriptor = os.open(alive, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        save_dense(oats, None, tmp_path / "model", {})
    finally:
        os.close(descriptor)
    assert sorted(tmp_path.iterdir()) == sorted([alive, other, tmp_path / "model"])


def test_a_file_that_may_not_grow_leaves_nothing(oats, tmp_path):
    """The kernel itself refuses the write, inside safetensors."""
    names = list(operators(oats))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="cannot write"):
            save_dense(oats, None, tmp_path / "model", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert nothing_is_left(tmp_path, oats, names)


def test_a_write_that_does_not_load_as_it_was_leaves_nothing(oats, tmp_path, monkeypatch):
    names = list(operators(oats))
    save = type(oats).save_pretrained

    def lossy(self, folder, **kwargs):
        save(self, folder, **kwargs)
        file = next(folder.glob("*.safetensors"))
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)

    monkeypatch.setattr(type(oats), "save_pretrained", lossy)
    with pytest.raises(BadInput, match="does not load as what was in memory"):
        save_dense(oats, None, tmp_path / "model", {})
    assert nothing_is_left(tmp_path, oats, names)


def test_counts_that_differ_when_it_is_loaded_again_leave_nothing(oats, tmp_path, monkeypatch):
    names, count = list(operators(oats)), checkpoint.achieved

    def lossy(model, names):
        found = count(model, names)
        if model is not oats:
            found["layers.1.mlp.up_proj"]["kept"] -= 1
        return found

    monkeypatch.setattr(checkpoint, "achieved", lossy)
    with pytest.raises(BadInput, match="does not load as what was in memory"):
        save_dense(oats, None, tmp_path / "model", {})
    assert nothing_is_left(tmp_path, oats, names)


def test_a_folder_that_exists_is_never_touched(oats, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "precious").write_text("mine")
    with pytest.raises(BadInput, match="exists"):
        save_dense(oats, None, folder, {})
    assert [p.name for p in folder.iterdir()] == ["precious"]


def test_provenance_that_is_no_json_is_found_before_writing(oats, tmp_path):
    with pytest.raises(BadInput, match="provenance"):
        save_dense(oats, None, tmp_path / "model", {"method": OATS()})
    with pytest.raises(BadInput, match="provenance"):
        save_dense(oats, None, tmp_path / "model", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
