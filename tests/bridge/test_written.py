"""Files written tensor by tensor say what is not whole; the costliest linear is dealt first."""

import pytest
import torch

from bridge.ranks import deal
from bridge.written import Written
from mech.errors import BadInput


@pytest.fixture
def files(tmp_path):
    return Written({tmp_path / "a.safetensors": {"x": torch.empty(3, 5, device="meta")}})


def test_a_tensor_has_its_place_once(files):
    files.put("x", torch.ones(3, 5))
    with pytest.raises(BadInput, match="no place for this tensor"):
        files.put("x", torch.ones(3, 5))


def test_what_does_not_read_as_it_was_is_named(files, tmp_path):
    files.put("x", torch.ones(3, 5))
    files.check()
    file = tmp_path / "a.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(BadInput, match=r"x in .* does not read as what was in memory"):
        files.check()


def test_the_costliest_is_dealt_first():
    assert deal({"a": (1, 1), "b": (1, 1), "c": (3, 1)}, 2) == [["c"], ["a", "b"]]
