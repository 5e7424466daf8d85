"""A model on disk that wears its shards computes as the compressed one, and after it as before."""

import pytest
import torch

from bridge.compress import compress
from bridge.dressed import worn
from bridge.shards import Shards
from bridge.sites import operators
from mech.load import load

from .conftest import METHODS


def logits(model, batches):
    with torch.no_grad():
        return torch.cat([model(input_ids=tokens).logits for tokens in batches])


@pytest.mark.parametrize(("family", "name"), [("llama", "oats"), ("mixtral", "wanda")])
def test_inside_compressed_and_outside_dense(family, name, folders, batches, tmp_path):
    folder = str(folders(family))
    disk, memory = load(folder, on_disk=True).model, load(folder).model
    dense = logits(memory, batches)
    compress(memory, METHODS[name], batches, shards=Shards(tmp_path))
    with worn(disk, Shards(tmp_path).joined()):
        assert torch.equal(logits(disk, batches), logits(memory, batches))
        assert not operators(disk)  # between passes no block is worn
    assert torch.equal(logits(disk, batches), dense)
    assert not torch.equal(logits(memory, batches), dense)
