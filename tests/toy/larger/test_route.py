"""Routes that were planted are recognised by what breaks them; an untrained model has none."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toy import transformer
from toy.diagnose import FVU
from toy.errors import Refused
from toy.larger import plant
from toy.larger.observe import forward, places, tag
from toy.larger.ranks import attention_input, effective, ranks, second_over_first
from toy.larger.route import held_out, study, verdict
from toy.larger.shape import Shape
from toy.larger.train import Recipe
from toy.larger.truncate import cut_OV, cut_QK
from toy.larger.weights import Weights, initial_weights
from toy.tasks import Batch, mean_after

SHAPE = Shape(d_model=10, heads=2, d_mlp=5, norm=False, longest=13)
RECIPE = Recipe(shape=SHAPE, shortest=9, longest=13)
N = 151


def single(weights):
    return Weights(*(np.asarray(field, np.float32) for field in weights))


@pytest.fixture(scope="module")
def batch():
    return held_out(RECIPE, N)


@pytest.fixture(scope="module")
def sink(batch):
    w = single(plant.theorem(SHAPE, 20.0, d=0.05))
    return w, study(RECIPE, w, w, batch)


def test_the_planted_theorem_is_the_theorem():
    """Any orthonormal u and v: the same function as the model with two dimensions."""
    x = np.random.default_rng(0).normal(size=(4, 11))
    x[:, 3] = 0
    b, d = 0.4, 0.7
    wanted, small = transformer.forward(transformer.theorem_weights(6.0, b, d), x, 4)
    given = jnp.full(4, 4), jnp.full(4, 11), jnp.zeros(4)
    with jax.enable_x64(True):
        f, left = forward(SHAPE, plant.theorem(SHAPE, 6.0, b=b, d=d), Batch(jnp.asarray(x), *given))
    # Logits of size s^2 and their softmax, in units of 2^-52.
    close = partial(np.testing.assert_allclose, rtol=0, atol=36 * 11 * 2**-52 * 16)
    close(f, wanted)
    close(left.pattern[:, :, :1], small.pattern)


def test_the_theorem_is_the_sink_route(sink):
    _, found = sink
    assert found.verdict == ("sink", True, "after")
    seen, broken = found.seen, found.effects
    assert seen.sink[0, 0] > 0.999
    # The other head has no weights: it looks at all tokens alike.
    np.testing.assert_allclose(seen.sink[:, 1], seen.uniform_sink, rtol=1e-5)
    np.testing.assert_allclose(seen.readout[1, 0], [0, 0, 1], atol=1e-3)
    np.testing.assert_allclose(seen.readout[1, 1], seen.uniform_readout, rtol=1e-5)
    # [SEP]'s embedding is s = 20 long, a number's sqrt(1 + x^2).
    assert 20 / 2 < seen.sep_over_number < 20
    assert [round(one.separable, 2) for one in seen.tags[1:]] == [1, 1]
    assert abs(seen.tags[0].separable - 0.5) < 0.05
    # Breaking: the catch, the choice and the tag; nothing else, and no other head.
    assert min(broken.cut_catch, broken.cut_sep[0, 0], broken.flat, broken.erased) > 0.5
    assert broken.cut_sep[0, 1] == pytest.approx(broken.untouched, abs=1e-6)
    assert broken.other_token.max() < FVU
    assert np.median(broken.other_erased) < FVU
    assert broken.mute == pytest.approx(broken.untouched, abs=1e-6)
    # Who has the tag is averaged: the numbers before [SEP], once they are given it.
    assert broken.swapped < FVU < broken.other_swapped.min()


def test_the_tag_of_the_theorem_is_its_v(sink, batch):
    w, found = sink
    v = -w.E_sep / np.linalg.norm(w.E_sep)
    vector = found.seen.tags[1].vector
    assert abs(vector @ v) / np.linalg.norm(vector) > 1 - 1e-3
    assert np.linalg.norm(vector) == pytest.approx(19, rel=1e-3)  # s - 1


def test_uniform_attention_with_thresholds_is_its_own_route(batch):
    w = single(plant.uniform(SHAPE))
    found = study(RECIPE, w, w, batch)
    assert found.verdict.route == "uniform"
    np.testing.assert_allclose(found.seen.sink[0], found.seen.uniform_sink, rtol=1e-5)
    # (2t - 1) X / (t - 1 + n e^L) at L = 12 is below 1e-3, and FVU is its square over .2.
    assert found.seen.fvu < 1e-5
    assert found.effects.flat == pytest.approx(found.seen.fvu, abs=1e-6)
    assert min(found.effects.cut_catch, found.effects.erased, found.effects.mute) > 0.5


def test_subtraction_is_its_own_route():
    """It serves one length and one place of [SEP]: so does this batch."""
    x = np.random.default_rng(0).standard_normal((N, 13)).astype(np.float32)
    x[:, 4] = 0
    at, last = jnp.full(N, 5), jnp.full(N, 13)
    batch = Batch(jnp.asarray(x), at, last, mean_after(jnp.asarray(x), at, last))
    w = single(plant.subtract(SHAPE, 13, 5))
    found = study(RECIPE, w, w, batch)
    assert found.verdict.route == "subtract"
    assert found.effects.cut_catch < FVU < found.effects.blind_sep


def test_an_untrained_model_has_no_route(batch):
    w = single(initial_weights(SHAPE, jax.random.key(1)))
    assert study(RECIPE, w, w, batch).verdict.route == "none"


def test_a_route_needs_its_control(sink):
    """What a random direction breaks as well is not the tag's doing, and likewise for [SEP]."""
    _, found = sink
    worse = found.effects.other_erased + 1
    spoiled = found.effects._replace(other_erased=worse)
    assert verdict(found.seen, spoiled).route == "other"
    spoiled = found.effects._replace(other_token=found.effects.other_token + 1)
    assert verdict(found.seen, spoiled).route == "other"
    weak = found.seen._replace(sink=found.seen.sink * 0.5)
    assert verdict(weak, found.effects).route == "shared"
    assert verdict(found.seen._replace(fvu=float("nan")), found.effects).route == "none"


def test_ranks_of_the_theorem(sink, batch):
    """W_QK is u u^T + v v^T, then d v v^T; W_V1 and the read-out are one direction each."""
    _, found = sink
    gain = SHAPE.d_head**0.5
    np.testing.assert_allclose(found.ranks.QK[0, 0, :2], [gain, gain], rtol=1e-5)
    np.testing.assert_allclose(found.ranks.QK[1, 0, 0], 0.05 * gain, rtol=1e-5)
    np.testing.assert_allclose(found.ranks.OV[:, 0, 0], 1, rtol=1e-5)
    assert effective(found.ranks.QK_data)[1, 0] == pytest.approx(1, abs=1e-4)
    assert np.isnan(effective(found.ranks.QK)[:, 1]).all()
    assert np.isnan(second_over_first(found.ranks.OV)[:, 1]).all()
    np.testing.assert_allclose(found.truncated.QK, found.seen.fvu, atol=1e-3)


def test_cutting_to_full_rank_changes_no_logit_and_less_is_the_best(batch):
    """Ordinary weights, with norm: the centred logits of rank r are the nearest (Eckart-Young)."""
    shape = Shape(d_model=10, heads=2, d_mlp=5, longest=13)
    w = single(initial_weights(shape, jax.random.key(2)))
    at = places(batch)
    _, left = forward(shape, w, batch)
    into = attention_input(shape, w, 1, left)[at.before | at.sep | at.after]
    keys = into - into.mean(axis=0)
    values = ranks(shape, w, left, at)
    for head in range(2):
        logits = [
            into @ v.W_Q[1, head] @ v.W_K[1, head].T @ keys.T
            for v in (w, *(cut_QK(w, into, 1, r) for r in (5, 2)))
        ]
        np.testing.assert_allclose(logits[1], logits[0], atol=1e-4)
        lost = np.square(logits[0] - logits[2]).sum() / len(into) / (len(into) - 1)
        np.testing.assert_allclose(lost, np.square(values.QK_data[1, head, 2:]).sum(), rtol=1e-3)
        full = cut_OV(w, into, 1, 5)
        np.testing.assert_allclose(full.W_O[1, head], w.W_O[1, head], atol=1e-6)
        less = w.W_V[1, head] @ cut_OV(w, into, 1, 2).W_O[1, head]
        assert np.linalg.matrix_rank(less, tol=1e-5) == 2


def test_the_tag_of_plain_arrays():
    """Two clouds at distance 6 along one axis: all of eta, the peak and the separation follow."""
    rng = np.random.default_rng(0)
    stream = rng.normal(size=(40, 12, 3))
    i = np.arange(1, 13)[None].repeat(40, axis=0)
    at = places(
        Batch(jnp.asarray(stream[..., 0]), jnp.full(40, 6), jnp.full(40, 12), jnp.zeros(40))
    )
    stream[i > 6, 1] += 6
    found = tag(stream, at)
    n = at.before.sum() + at.after.sum()
    np.testing.assert_allclose(found.vector, [0, 6, 0], atol=5 * 2 / np.sqrt(n))
    share = at.before.sum() * at.after.sum() / n**2 * 36
    assert found.share == pytest.approx(share / (share + 3), abs=5 / np.sqrt(n))
    assert found.peak > 0.99
    assert found.separable > 0.999  # Phi(6 / sqrt 2)
    assert found.after_over_before == pytest.approx(np.sqrt(39 / 3), rel=0.15)


@pytest.mark.parametrize(
    "shape", [replace(SHAPE, norm=True), replace(SHAPE, layers=1), Shape(d_model=3, heads=1)]
)
def test_what_cannot_hold_a_route_is_refused(shape):
    with pytest.raises(Refused, match="planted route needs"):
        plant.theorem(shape, 9.0)
    with pytest.raises(Refused, match="four neurons"):
        plant.uniform(replace(SHAPE, mlp=False))
