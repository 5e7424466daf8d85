"""What every method leaves can be stored, and comes back bit for bit."""

import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import bridge
from bridge.checkpoint import content_hash, save
from bridge.compress import compress
from bridge.decode.gated import Gated
from bridge.masked import Masked
from bridge.methods import COMPONENT_METHODS, METHODS
from bridge.methods.wanda import Wanda
from bridge.operators import LinearOperator, Operator
from bridge.packed import packed
from bridge.serial import _KINDS
from bridge.sites import operators
from bridge.sliced import Sliced

NOT_STORED = {Masked, Gated}
"""What stands in a model only while a term is looked at, or while it decodes by a recipe."""


@pytest.mark.parametrize("name", [*METHODS, *COMPONENT_METHODS])
def test_packed_and_loaded_is_equal_bit_for_bit(name, families, batches, tmp_path):
    """And nothing is stored that is not counted, but for the last byte of a bitmask.

    Sliced counts a bitmask a side, and stores the indices as they are.
    """
    model = families["mistral"]()
    method = (METHODS | COMPONENT_METHODS)[name]()
    compress(model, method, batches, select="layers.1.*")
    folder = save(model, None, tmp_path / "model", {}, form="packed")
    again = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert content_hash(again) == content_hash(model)
    for name, parts in packed(model).items():
        operator = operators(model)[name]
        bits = 8 * sum(tensor.nbytes for tensor in parts.values())
        assert bits < operator.bits() + 8 * len(list(operator.modules())) + 64 * indices(operator)
    for there, here in zip(operators(again).values(), operators(model).values(), strict=True):
        assert [type(m) for m in there.modules()] == [type(m) for m in here.modules()]
        assert there.bits() == here.bits()
    with torch.no_grad():
        assert torch.equal(again(batches[0]).logits, model(batches[0]).logits)


def indices(operator: Operator) -> int:
    """Rows and columns that a sliced matrix lists."""
    sides = [
        side for m in operator.modules() if isinstance(m, Sliced) for side in (m.rows, m.columns)
    ]
    return sum(len(side) for side in sides if side is not None)


def subclasses(kind: type) -> set[type]:
    return {kind, *(each for below in kind.__subclasses__() for each in subclasses(below))}


def test_every_class_of_operators_has_a_kind():
    assert bridge.__file__ is not None
    root = Path(bridge.__file__).parent
    for file in root.rglob("*.py"):
        path = file.relative_to(root.parent).with_suffix("")
        import_module(".".join(path.parts).removesuffix(".__init__"))
    ours = {
        kind
        for kind in subclasses(Operator) - {Operator, LinearOperator}
        if kind.__module__.startswith("bridge.") and not kind.__name__.startswith("_")
    }
    assert len(ours) > 8
    assert {kind.operator for kind in _KINDS.values()} == ours - NOT_STORED


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 100 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=100k", "none", str(place)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("may not mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("form", ["dense", "packed"])
def test_a_disk_that_fills_up_is_left_as_it_was(llama, batches, tiny_disk, form):
    compress(llama, Wanda(), batches, select="*.q_proj")
    (tiny_disk / "precious").write_text("mine")
    with pytest.raises(OSError, match=r"cannot write .*nothing was left behind") as caught:
        save(llama, None, tiny_disk / "model", {}, form=form)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tiny_disk.iterdir()] == ["precious"]
    assert len(operators(llama)) == 3
