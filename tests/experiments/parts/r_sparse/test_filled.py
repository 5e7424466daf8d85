"""What stands in for small inputs: its values, and that the model is itself again after."""

import numpy as np
import pytest
import torch

from bridge.decode.inputs import calibrate
from bridge.sites import linears
from experiments.parts.r_sparse import filled, filled_page
from mech.load import load


@pytest.fixture(scope="module")
def tiny(model):
    return load(str(model)).model


@pytest.fixture(scope="module")
def ids():
    return torch.randint(2, 60, (3, 17), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model, ids):
    return model(ids, use_cache=False).logits


@pytest.fixture
def x():
    return torch.randn(50, 21, generator=torch.Generator().manual_seed(1))


def test_nothing_leaves_zeros_below_the_quantile(x):
    found = filled.nothing(x, 0.7)(x)
    assert (found == 0).float().mean() == pytest.approx(0.7, abs=1e-3)
    assert torch.equal(found[found != 0], x[found != 0])
    assert x[found == 0].abs().max() <= x[found != 0].abs().min()


def test_constants_keep_the_mean_and_one_bias_keeps_it_by_channel(x):
    for make in (filled.constants(1), filled.constants(3)):
        assert make(x, 0.5)(x).mean() == pytest.approx(float(x.mean()), abs=1e-6)
    found = filled.bias(x, 0.5)(x)
    torch.testing.assert_close(found.mean(dim=0), x.mean(dim=0))
    # The bias is one vector, whatever the token.
    added = found - filled.nothing(x, 0.5)(x)
    torch.testing.assert_close(added, added[:1].expand_as(added))


def test_more_constants_come_closer(x):
    errors = [float((filled.constants(n)(x, 0.9)(x) - x).square().mean()) for n in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 10


def test_constants_by_chance_are_the_same_ones_and_say_nothing(x):
    by_size, by_chance = filled.constants(2)(x, 0.8)(x), filled.at_random(2, 0)(x, 0.8)(x)
    left = filled.nothing(x, 0.8)(x) == 0
    assert set(by_chance[left].tolist()) == set(by_size[left].tolist())
    assert torch.equal(by_chance[~left], x[~left])
    error = [(found - x)[left].square().mean() for found in (by_size, by_chance)]
    assert error[1] > 2 * error[0]
    again = filled.at_random(2, 0)(x, 0.8)(x)
    assert torch.equal(again, by_chance)


def test_every_linear_reads_its_own_filling_and_is_itself_after(tiny, ids):
    inputs = calibrate(tiny, [ids], keep=64)
    before = logits(tiny, ids)
    fills = filled.fills(inputs, filled.nothing, 0.5)
    assert set(fills) == set(linears(tiny))
    q, k, o = (fills[f"layers.1.self_attn.{name}_proj"] for name in "qko")
    assert q is k
    assert q is not o
    with filled.filled(tiny, fills):
        assert not torch.allclose(logits(tiny, ids), before, atol=1e-4)
    assert torch.equal(logits(tiny, ids), before)


def test_a_shared_input_is_filled_once_and_no_other_is_taken_for_it(tiny, ids):
    calls = []

    def fill(x):
        calls.append(x.shape)
        return x

    fills = dict.fromkeys(linears(tiny), fill)
    with filled.filled(tiny, fills):
        logits(tiny, ids)
    assert len(calls) == 4 * 2  # qkv, o, gate and up, down of both blocks


def test_won_back_is_0_where_nothing_is_and_1_where_dense_is():
    units = {
        "dense": np.array([1.0, 2.0]),
        "50%, nothing": np.array([3.0, 6.0]),
        "50%, bias": np.array([2.0, 2.0]),
        "90%, nothing": np.array([5.0, 4.0]),
    }
    found = filled_page.won_back(units)
    assert found["50%", "nothing"].tolist() == [0, 0]
    assert found["50%", "bias"].tolist() == [0.5, 1]
    assert found["90%", "nothing"].tolist() == [0, 0]
    assert len(filled_page.table(units).rows) == 3
