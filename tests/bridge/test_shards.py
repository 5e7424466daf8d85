"""Blocks on disk: what is read is what was written, and nothing else is ever used."""

import errno
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch

from bridge.compress import compress
from bridge.compression import restore
from bridge.fingerprint import fingerprint, told
from bridge.methods import COMPONENT_METHODS, METHODS
from bridge.methods.magnitude import Magnitude
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda
from bridge.operators import LinearOperator, Sparse
from bridge.patterns import RowWise
from bridge.shards import Shards
from bridge.sites import operators
from bridge.statistics import Moment, Statistic, diagonal_moment
from mech.errors import BadInput


@dataclass(frozen=True)
class Counting:
    """Wanda, that says how often it was asked."""

    calls: ClassVar[list[Any]] = []
    statistic: ClassVar[Statistic[Moment]] = diagonal_moment

    def __call__(self, weight, seen) -> LinearOperator:
        self.calls.append(weight.shape)
        return Wanda()(weight, seen)


@dataclass(frozen=True)
class Stops(Counting):
    """And stops at one of its calls."""

    at: int = 0

    def __call__(self, weight, seen) -> LinearOperator:
        if len(self.calls) == self.at:
            raise KeyboardInterrupt
        return super().__call__(weight, seen)


@pytest.fixture(autouse=True)
def fresh():
    Counting.calls.clear()


def state(model):
    """Every buffer and parameter of the compressed model, and its operators' classes."""
    kinds = {
        name: [type(m).__name__ for m in op.modules()] for name, op in operators(model).items()
    }
    return kinds, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model, expected) -> bool:
    kinds, tensors = state(model)
    return kinds == expected[0] and all(
        torch.equal(tensors[name], tensor) for name, tensor in expected[1].items()
    )


def without_seconds(compression):
    return [row._replace(seconds=0.0) for row in compression.rows]


@pytest.mark.parametrize("family", ["phi3", "gptneox"])
def test_what_is_read_back_is_the_run_itself(family, families, batches, tmp_path):
    """Stacked parts, and biases; the files are read in the second run and written in the first."""
    model = families[family]()
    compression = compress(model, OATS(iterations=3), batches)
    expected, rows = state(model), without_seconds(compression)
    restore(model, compression)
    for _ in range(2):
        done = compress(model, OATS(iterations=3), batches, shards=Shards(tmp_path / "run"))
        assert same(model, expected)
        assert without_seconds(done) == rows
        restore(model, done)


@pytest.mark.parametrize("name", [*METHODS, *COMPONENT_METHODS])
def test_every_method_goes_on_to_the_same_bytes(name, llama, batches, tmp_path):
    """Whatever its operators are, and also where the run before had done the second block only."""
    select = "layers.0.*" if name == "a3" else "layers.[01].self_attn.*"
    method: Any = (METHODS | COMPONENT_METHODS)[name]()
    compression = compress(llama, method, batches, select=select)
    expected, rows = state(llama), without_seconds(compression)
    restore(llama, compression)
    for _ in range(2):
        done = compress(llama, method, batches, select=select, shards=Shards(tmp_path))
        assert same(llama, expected)
        assert without_seconds(done) == rows
        restore(llama, done)
        (tmp_path / "block-00000.safetensors").unlink()


def test_a_run_that_stopped_goes_on_at_its_block(llama, batches, tmp_path):
    compression = compress(llama, Counting(), batches)
    expected = state(llama)
    restore(llama, compression)
    # Fourteen linears are two blocks; two more of the third were done in vain.
    Counting.calls.clear()
    stopping = Stops(at=16)
    with pytest.raises(KeyboardInterrupt):
        compress(llama, stopping, batches, shards=Shards(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "block-00000.safetensors", "block-00001.safetensors", "run.json"
    ]  # fmt: skip
    Counting.calls.clear()
    heard: list[str] = []
    compress(llama, stopping, batches, shards=Shards(tmp_path), advance=heard.append)
    assert len(Counting.calls) == 7
    assert len(heard) == 21
    assert same(llama, expected)


OTHERS = {
    "method": "its method is",
    "batches": "its calibration is another",
    "split": "its calibration is another",
    "select": r"its select is \*, here \*mlp\*",
    "weights": "its token weights is another",
    "model": "its model is another",
    "dtype": "its dtype and device is float32 on cpu, here bfloat16 on cpu",
    "configuration": "its configuration is another",
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_run_is_refused_in_one_line(what, llama, batches, tmp_path):
    restore(llama, compress(llama, Wanda(), batches, shards=Shards(tmp_path)))
    method, more = Wanda(), {}
    if what == "method":
        method = Wanda(RowWise(0.4))
    elif what == "batches":
        batches[1][0, 3] += 1
    elif what == "split":
        batches = [torch.cat(batches)]
    elif what == "select":
        more["select"] = "*mlp*"
    elif what == "weights":
        more["token_weights"] = [torch.ones(b.shape) for b in batches]
    elif what == "dtype":
        llama.to(torch.bfloat16)
    elif what == "configuration":
        llama.config.rope_parameters["rope_theta"] = 9000.0
    else:
        with torch.no_grad():
            llama.model.norm.weight[3] += 1e-6
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(BadInput, match=OTHERS[what]) as caught:
        compress(llama, method, batches, shards=Shards(tmp_path), **more)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert not operators(llama)


@pytest.mark.parametrize("damage", ["flip", "metadata", "cut", "empty", "rubbish"])
def test_a_damaged_block_is_done_again_aloud(damage, llama, batches, tmp_path):
    restore(llama, compress(llama, Wanda(), batches, shards=Shards(tmp_path)))
    compression = compress(llama, Wanda(), batches)
    expected = state(llama)
    restore(llama, compression)
    file = tmp_path / "block-00001.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
    elif damage == "metadata":
        where = content.index(b'delta_w\\": ') + len(b'delta_w\\": ') + 4
        content[where] = ord("1") if content[where] != ord("1") else ord("2")
    content = {"cut": content[:-100], "empty": b"", "rubbish": b"{}" * 99}.get(damage, content)
    file.write_bytes(content)
    notes: list[str] = []
    compress(llama, Wanda(), batches, shards=Shards(tmp_path, notes.append))
    assert len(notes) == 1
    assert f"{file} is damaged" in notes[0]
    assert "block 1 is done again" in notes[0]
    assert same(llama, expected)


def test_every_single_bit_of_a_block_is_watched(llama, batches, tmp_path, generator):
    """Flipped anywhere: told of, or read as what was written."""
    one = "layers.0.*.k_proj"
    restore(llama, compress(llama, Wanda(), batches, select=one, shards=Shards(tmp_path)))
    file = tmp_path / "block-00000.safetensors"
    sound = file.read_bytes()
    shards, notes = Shards(tmp_path), []
    with shards.running(llama, Wanda(), batches, select=one):
        shards._tell = notes.append
        (expected,) = (shards.read(0) or {}).values()
        quiet = 0
        for bit in torch.randint(0, 8 * len(sound), (400,), generator=generator).tolist():
            content = bytearray(sound)
            content[bit // 8] ^= 1 << bit % 8
            file.write_bytes(content)
            found = shards.read(0)
            if found is None:
                continue
            quiet += 1
            (again,) = found.values()
            assert again.row == expected.row
            for one, other in zip(
                again.operator.buffers(), expected.operator.buffers(), strict=True
            ):
                assert torch.equal(one, other)
    assert len(notes) + quiet == 400
    assert quiet < 20


def test_a_default_run_warns_of_damage(llama, batches, tmp_path):
    restore(llama, compress(llama, Wanda(), batches, shards=Shards(tmp_path)))
    (tmp_path / "block-00002.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="block 2 is done again"):
        compress(llama, Wanda(), batches, shards=Shards(tmp_path))
    assert (tmp_path / "block-00002.safetensors").stat().st_size


def test_a_block_of_another_run_or_place_is_refused(llama, batches, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder, method in ((ours, Wanda()), (theirs, Magnitude())):
        restore(llama, compress(llama, method, batches, shards=Shards(folder)))
    name = "block-00001.safetensors"
    sound = (ours / name).read_bytes()
    (ours / name).write_bytes((theirs / name).read_bytes())
    with pytest.raises(BadInput, match=f"{name} belongs to another run"):
        compress(llama, Wanda(), batches, shards=Shards(ours))
    assert not operators(llama)
    (ours / name).write_bytes(sound)
    (ours / "block-00002.safetensors").write_bytes(sound)
    with pytest.raises(BadInput, match="belongs to block 1"):
        compress(llama, Wanda(), batches, shards=Shards(ours))
    assert not operators(llama)


def test_a_folder_of_other_things_is_left_alone(llama, batches, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(BadInput, match=r"has thesis\.tex and no run\.json"):
        compress(llama, Wanda(), batches, shards=Shards(tmp_path))
    (tmp_path / "thesis.tex").unlink()
    (tmp_path / "run.json").write_text("[1,")
    with pytest.raises(BadInput, match=r"run\.json cannot be read"):
        compress(llama, Wanda(), batches, shards=Shards(tmp_path))


def test_two_runs_do_not_share_a_folder_at_once(llama, batches, tmp_path):
    first = Shards(tmp_path)
    with (
        first.running(llama, Wanda(), batches),
        pytest.raises(BadInput, match="another process is writing"),
    ):
        compress(llama, Wanda(), batches, shards=Shards(tmp_path))
    compress(llama, Wanda(), batches, shards=Shards(tmp_path))


def test_a_cache_waits_for_who_writes_it(llama, batches, tmp_path, monkeypatch):
    """Another process holds the folder, writes, and ends: the same bytes are read, none written."""
    restore(llama, compress(llama, Wanda(), batches, shards=Shards(tmp_path / "done")))
    folder = tmp_path / "cache"
    folder.mkdir()
    program = """if True:
        import fcntl, os, shutil, sys, time
        held = os.open(sys.argv[2], os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        print("held", flush=True)
        time.sleep(0.5)
        shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)
    """
    command = [sys.executable, "-c", program, str(tmp_path / "done"), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        shards = Shards(folder, wait=True)
        monkeypatch.setattr(shards, "write", pytest.fail)
        compress(llama, Wanda(), batches, shards=shards)
    assert other.returncode == 0


def test_what_a_kill_left_half_written_is_removed(llama, batches, tmp_path):
    tmp_path.joinpath("block-00000.safetensors.partial").write_bytes(b"half")
    compress(llama, Wanda(), batches, shards=Shards(tmp_path))
    assert len(list(tmp_path.iterdir())) == 4
    assert not list(tmp_path.glob("*.partial"))


def test_a_full_disk_keeps_what_is_done(llama, batches, tmp_path):
    """The kernel refuses the write of a whole block; the model and earlier files are untouched."""
    shards = Shards(tmp_path)
    write = shards.write

    def short(layer, done):
        if layer < 2:
            return write(layer, done)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        try:
            return write(layer, done)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    shards.write = short  # type: ignore[method-assign]
    with pytest.raises(OSError, match=r"cannot write .*blocks that are done are kept") as caught:
        compress(llama, Wanda(), batches, shards=shards)
    assert caught.value.errno == errno.EFBIG
    assert "\n" not in str(caught.value)
    assert not operators(llama)
    assert sorted(os.listdir(tmp_path)) == [
        "block-00000.safetensors", "block-00001.safetensors", "run.json"
    ]  # fmt: skip
    compress(llama, Wanda(), batches, shards=Shards(tmp_path))


def test_a_method_is_told_with_all_its_values():
    methods = [Wanda(), Wanda(RowWise(0.4)), Magnitude(), OATS(), OATS(iterations=79)]
    assert len({json.dumps(told(method)) for method in methods}) == 5
    assert told({"layers.0.q": Wanda()}) == {"layers.0.q": told(Wanda())}
    assert told(torch.ones(3)) != told(torch.ones(4))
    assert told(replace(OATS(), iterations=80)) == told(OATS())


def test_a_method_that_cannot_say_what_it_is_is_refused(llama, batches):
    class Nameless:
        statistic = diagonal_moment

        def __call__(self, weight, seen):
            return Sparse(weight)

    with pytest.raises(BadInput, match="use a named function"):
        fingerprint(llama, Nameless(), batches)
    with pytest.raises(BadInput, match="cannot be told apart"):
        told({1, 2})
