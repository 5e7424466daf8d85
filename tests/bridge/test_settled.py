"""Settled thresholds read what the plan says, in the sparse model."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bridge.decode.baselines import plans
from bridge.decode.inputs import calibrate
from bridge.decode.recipe import fit
from bridge.decode.settled import settled
from bridge.decode.sparsified import sparsified
from bridge.sites import linears


@pytest.fixture
def shapes(llama):
    return {n: (m.out_features, m.in_features) for n, m in linears(llama).items()}


@torch.no_grad()
def off(model, recipe, batches, sparse_from) -> float:
    """The worst linear's share of channels read, less the planned one."""
    with sparsified(model, recipe, sparse_from=sparse_from, count=True, layout="shared") as found:
        for ids in batches:
            model(ids, use_cache=False)
        return max(abs(gated.read - gated.channels) for gated in found.gated.values())


@pytest.mark.parametrize("sparse_from", [0.0, 0.5])
@pytest.mark.parametrize("method", ["teal", "sparse", "r-sparse-moment"])
def test_what_is_read_is_what_was_planned(llama, shapes, batches, method, sparse_from):
    inputs = calibrate(llama, batches)
    recipe = fit(llama, plans.UNIFORM[method](shapes, 0.6), inputs)
    before = off(llama, recipe, batches, sparse_from)
    after = off(
        llama, settled(llama, recipe, batches, rounds=6, sparse_from=sparse_from), batches,
        sparse_from,
    )  # fmt: skip
    assert after < before / 4
    assert after < 0.005


def test_behind_dense_linears_nothing_changes(llama, batches):
    """The inputs of one block's first linears are the dense model's; nothing else is gated."""
    first = [f"layers.1.self_attn.{part}_proj" for part in "qk"]
    recipe = fit(llama, plans.teal(first, 0.5), calibrate(llama, batches))
    again = settled(llama, recipe, batches, rounds=1)
    for name in first:
        assert torch.equal(again.thresholds[name], recipe.thresholds[name])
    assert again.plan == recipe.plan


def test_linears_of_another_kind_are_settled_too(batches):
    """GPT-2's are no nn.Linear: hooks on what only stands for them would never be called."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=97, n_embd=24, n_layer=2, n_head=3, n_positions=64)
    model = GPT2LMHeadModel(config).eval()
    shapes = {n: (m.out_features, m.in_features) for n, m in linears(model).items()}
    recipe = fit(model, plans.UNIFORM["teal"](shapes, 0.6), calibrate(model, batches))
    before = off(model, recipe, batches, 0.0)
    after = off(model, settled(model, recipe, batches, rounds=6), batches, 0.0)
    assert after < before / 4
