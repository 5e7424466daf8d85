"""Out of memory: batches are halved and the work goes on; what cannot be is one line."""

import pytest
import torch
import transformers

from bridge.compress import compress
from bridge.manifest import content_hash
from bridge.methods.wanda import Wanda
from bridge.shards import Shards
from mech.errors import BadInput


def tiny():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=36, intermediate_size=52, num_hidden_layers=3,
        num_attention_heads=6, num_key_value_heads=2, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def scarce(model, most: int, layer: int):
    """A block that has room for so many sequences at a time, as an allocator would have."""

    def hook(_, args, __):
        if len(args[0]) > most:
            raise torch.OutOfMemoryError("out of memory: tried to allocate 2.00 GiB")

    return model.model.layers[layer].register_forward_pre_hook(hook, with_kwargs=True)


def test_out_of_memory(generator, tmp_path):
    """The third block runs out of it: halved batches go on to the same operators within
    rounding, and the blocks before are kept. Room for not even one sequence is one line, and the
    model is as it was; what was done lies in the shards."""
    tokens = torch.randint(3, 97, (8, 17), generator=generator)
    plenty, little, none = tiny(), tiny(), tiny()
    compress(plenty, Wanda(), [tokens])
    handle = scarce(little, 2, 2)
    done = compress(little, Wanda(), [tokens])
    handle.remove()
    assert done.halved == 2
    with torch.no_grad():
        torch.testing.assert_close(little(tokens).logits, plenty(tokens).logits)
    before = content_hash(none)
    handle = scarce(none, 0, 2)
    with pytest.raises(BadInput, match="one sequence of 17 tokens does not fit") as caught:
        compress(none, Wanda(), [tokens], shards=Shards(tmp_path / "kept"))
    handle.remove()
    assert "\n" not in str(caught.value)
    assert content_hash(none) == before
    assert not list(tmp_path.rglob("*.partial*"))
