"""Numbers that are too large, too small or none: named by the layer, never written."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from bridge.checkpoint import content_hash
from bridge.compress import compress
from bridge.methods import METHODS
from bridge.methods.magnitude import Magnitude
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda
from bridge.operators import Dense, LinearOperator
from bridge.sites import linears, operators
from bridge.statistics import Moment, Statistic, diagonal_moment, second_moment
from mech.blocks import decoder_blocks
from mech.errors import BadInput

FIRST = "layers.0.*"


@dataclass(frozen=True)
class Times:
    """The weight, so many times."""

    factor: float
    statistic: ClassVar[Statistic[Moment]] = diagonal_moment

    def __call__(self, weight, seen) -> LinearOperator:
        return Dense((weight.double() * self.factor).to(weight.dtype))


def block(model, index) -> Any:
    return decoder_blocks(model)[index]


def refused(model, method, batches, match, **options):
    """In one line, and the model is as before."""
    before = content_hash(model)
    with pytest.raises(BadInput, match=match) as caught:
        compress(model, method, batches, **options)
    assert "\n" not in str(caught.value)
    assert content_hash(model) == before
    assert not operators(model)


@pytest.mark.parametrize("name", METHODS)
def test_dead_channels_are_no_trouble_to_any_method(name, llama, batches):
    """Channels that no token uses, some of whose weights are large; all methods stay finite."""
    dead = [3, 5, 30]
    with torch.no_grad():
        block(llama, 0).input_layernorm.weight[dead] = 0
        block(llama, 0).self_attn.q_proj.weight[:, dead] = 100.0
    done = compress(llama, METHODS[name](), batches, select=FIRST)
    assert all(row.error < 1 for row in done.rows)
    with torch.no_grad():
        logits = [llama(tokens).logits for tokens in batches]
    assert all(bool(x.isfinite().all()) for x in logits)


def test_half_precision_that_overflows_in_a_block_names_it(llama, batches):
    """65,504 is the largest float16; bfloat16 and float32 go on."""
    with torch.no_grad():
        for linear in block(llama, 1).mlp.children():
            if isinstance(linear, nn.Linear):
                linear.weight *= 1e3
    llama.half()
    refused(llama, Wanda(), batches, r"layers\.1: its output is not finite, before anything")
    llama.bfloat16()
    assert len(compress(llama, Wanda(), batches, select=FIRST).rows) == 7


def test_half_precision_that_overflows_behind_a_compressed_block_names_it(llama, batches):
    llama.half()
    refused(
        llama, Times(3e4), batches, r"layers\.0: its output is not finite", select="layers.0.mlp.*"
    )
    refused(llama, Times(1e9), batches, r"layers\.0\.self_attn\.q_proj: its compressed weight")


def test_factors_that_overflow_name_their_linear(llama, batches):
    """Inputs of 1e-7: undoing their scale makes factors that float16 does not hold."""
    with torch.no_grad():
        block(llama, 1).input_layernorm.weight *= 1e-7
    refused(llama.half(), OATS(iterations=2), batches, r"layers\.1\.self_attn\.\w_proj: its compr")
    llama.bfloat16()
    assert compress(llama, OATS(iterations=2), batches).density < 0.51


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_every_linear_that_is_not_finite_is_named(bad, model, batches):
    name, linear = list(linears(model).items())[-2]
    with torch.no_grad():
        linear.weight[1, 2] = bad
    before = [id(m) for m in decoder_blocks(model).modules()]
    with pytest.raises(BadInput, match=f"{name}: its weight is not finite"):
        compress(model, Magnitude(), batches)
    assert [id(m) for m in decoder_blocks(model).modules()] == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_moments_of_massive_activations_do_not_overflow(dtype):
    """255 · 261 is no float16, and its square far from one: sums are in float64."""
    x = torch.full((7, 3), 6e4, dtype=dtype)
    x[:, 1] = 1e-4
    exact = x.double()
    seen = diagonal_moment.update(diagonal_moment.init(3), x)
    assert torch.equal(seen.total, exact.square().sum(0))
    full = second_moment.update(second_moment.init(3), x)
    torch.testing.assert_close(full.total, exact.mT @ exact, rtol=1e-12, atol=0)
