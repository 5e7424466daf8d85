"""LoftQ and QERA as the start of a PEFT adapter: a quantised base, and factors that learn."""

from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from bridge.checkpoint import save
from bridge.compress import compress
from bridge.methods.loftq import LoftQ
from bridge.methods.qera import QERA
from bridge.quantized import Quantized
from bridge.quantizers import MXINT, RoundToNearest
from bridge.sites import operators

# PEFT 0.21 reads a name that transformers 5.23 has given up.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def logits(model, batches):
    with torch.no_grad():
        return model(input_ids=batches[0]).logits


@pytest.mark.parametrize("method", [LoftQ(RoundToNearest(2, 6), 4), QERA(MXINT(2, 6), 4)], ids=str)
def test_peft_starts_from_it_and_learns(method, families, batches, tmp_path):
    model = families["qwen3"]()
    dense = logits(model, batches)
    compress(model, method, batches)
    folder = save(model, None, tmp_path / "model", {}, form="base+lora")
    base = AutoModelForCausalLM.from_pretrained(folder / "base", local_files_only=True)
    # The base is on the grid: what a quantised base would compute.
    for name, operator in operators(model).items():
        linear: Any = base.get_submodule(f"model.{name}")
        (quantized,) = (term for term in operator.modules() if isinstance(term, Quantized))
        assert torch.equal(linear.weight, quantized.dense())
    alone = logits(base, batches)
    adapted: Any = peft.PeftModel.from_pretrained(
        base, folder / "adapter", is_trainable=True, autocast_adapter_dtype=False
    )
    started = logits(adapted, batches)
    torch.testing.assert_close(started, logits(model, batches))
    # PEFT's own start is B = 0: the base alone.
    assert (started - dense).norm() < 0.9 * (alone - dense).norm()
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 3
    loss = adapted(input_ids=batches[0], labels=batches[0]).loss
    loss.backward()
    assert all(bool(p.grad.any()) for p in trained.values())
    with torch.no_grad():
        for parameter in trained.values():
            parameter.sub_(0.05 * parameter.grad)
        assert adapted(input_ids=batches[0], labels=batches[0]).loss < loss
