"""A stream in files: what comes back is what was put there; what cannot be is one line."""

import errno
import gc
import resource
from contextlib import contextmanager

import pytest
import torch

from bridge.checkpoint import whole_folder
from bridge.spill import Spilled, clear
from mech.disk import as_the_system_says
from mech.errors import BadInput

SIZES = [(1, 1, 5), (3, 7, 5), (2, 0, 5), (1, 129, 5)]


@contextmanager
def full_after(count):
    """The kernel refuses to let a file grow further, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def draw(generator):
    return lambda *size: torch.randn(*size, generator=generator)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_bit_for_bit_in_order_and_as_often_as_it_is_asked(dtype, tmp_path, draw):
    tensors = [draw(*size).to(dtype) for size in SIZES]
    tensors[1][0, 0, 0], tensors[1][0, 0, 1] = float("nan"), -0.0
    spilled = Spilled(tmp_path / "a" / "b", (t.clone() for t in tensors))
    assert len(spilled) == len(tensors)
    bits = [t.reshape(-1).view(torch.uint8) for t in tensors]
    for found in (list(spilled), list(spilled), spilled[:], [spilled[i] for i in range(-4, 0)]):
        for one, tensor, raw in zip(found, tensors, bits, strict=True):
            assert (one.dtype, one.shape) == (dtype, tensor.shape)
            assert torch.equal(one.reshape(-1).view(torch.uint8), raw)
    assert [t.shape for t in spilled[::-2]] == [SIZES[3], SIZES[1]]
    for beyond in (4, -5):
        with pytest.raises(IndexError):
            spilled[beyond]


def test_a_view_is_kept_as_what_it_shows(tmp_path, draw):
    whole = draw(5, 4, 5)
    spilled = Spilled(tmp_path, [whole.transpose(0, 2), whole[::2]])
    assert torch.equal(spilled[0], whole.transpose(0, 2))
    assert torch.equal(spilled[1], whole[::2])


def test_nothing_is_shared_with_what_was_put_there(tmp_path):
    tensor = torch.ones(2, 3, 1)
    spilled = Spilled(tmp_path, [tensor])
    tensor += 1
    spilled[0].zero_()
    assert torch.equal(spilled[0], torch.ones(2, 3, 1))


def test_two_streams_in_one_folder_do_not_meet_and_each_goes_with_its_object(tmp_path):
    first, second = (Spilled(tmp_path, [torch.full((1, 2, 3), x)]) for x in (1.0, 2.0))
    assert (float(first[0].mean()), float(second[0].mean())) == (1, 2)
    del first
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 1
    assert float(second[0].mean()) == 2


def test_what_a_kill_left_is_cleared_and_nothing_else(tmp_path):
    left, other = tmp_path / "stream-dead", tmp_path / "notes"
    left.mkdir()
    (left / "000000.safetensors").write_bytes(b"half")
    other.write_text("mine")
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == [other]
    other.unlink()
    clear(tmp_path)
    assert not tmp_path.exists()
    clear(tmp_path)  # of a folder that is not there


@pytest.mark.parametrize("kept", [None, 0, 5, -4])
def test_a_file_that_is_gone_or_cut_is_one_line_that_names_it(kept, tmp_path):
    spilled = Spilled(tmp_path, [torch.ones(3, 5, 3), torch.ones(1, 2, 3)])
    (file,) = tmp_path.glob("*/000000.safetensors")
    if kept is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(BadInput, match=r"000000\.safetensors is not what was written") as caught:
        spilled[0]
    assert "\n" not in str(caught.value)
    assert torch.equal(spilled[1], torch.ones(1, 2, 3))


def test_a_full_disk_says_so_with_the_systems_number_and_what_was_there_stays(tmp_path):
    """safetensors' own error is no OSError, and `ctr` would not know it."""
    spilled = Spilled(tmp_path, [torch.ones(1, 2, 3)])
    with full_after(1000), pytest.raises(OSError) as caught:
        spilled.append(torch.ones(3, 70, 3))
    assert caught.value.errno == errno.EFBIG
    assert caught.value.strerror
    assert len(spilled) == 1
    assert torch.equal(spilled[0], torch.ones(1, 2, 3))
    spilled.append(torch.ones(3, 70, 3))  # there is room again
    assert torch.equal(spilled[1], torch.ones(3, 70, 3))


def test_a_checkpoint_on_a_full_disk_says_so_and_leaves_nothing(tmp_path):
    from safetensors.torch import save_file

    with (
        full_after(1000),
        pytest.raises(OSError, match="nothing was left behind") as caught,
        whole_folder(tmp_path / "saved") as partial,
    ):
        save_file({"a": torch.ones(50, 70)}, partial / "model.safetensors")
    assert caught.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


def test_other_errors_of_safetensors_are_not_the_systems(tmp_path):
    from safetensors import SafetensorError
    from safetensors.torch import load

    with pytest.raises(SafetensorError), as_the_system_says():
        load(b"no tensors")
