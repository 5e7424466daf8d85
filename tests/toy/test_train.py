"""Training finds the mechanism from the diagonal start; what does not train is reported."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from toy.diagnose import diagnose
from toy.errors import Refused
from toy.spectrum import effective_rank, singular_values
from toy.train import PRESETS, History, Recipe, Trained, initial_weights, train
from toy.transformer import Weights, theorem_weights

SMALL = replace(Recipe(), steps=60, seeds=3, batch=8, checkpoints=6, longest=20)


@pytest.fixture(scope="module")
def full():
    """The default recipe as it is: 64 seeds, 4,000 steps."""
    trained = train(PRESETS["diagonal"])
    return trained, diagnose(trained)


def test_the_default_recipe_finds_catch_tag_release(full):
    trained, found = full
    assert found.finite.all()
    assert found.found.sum() >= 60
    assert np.median(found.fvu) < 0.01
    assert trained.history.loss.shape == (64, 40)
    assert trained.history.loss[:, -1].mean() < trained.history.loss[:, 0].mean() / 5


def test_what_was_found_is_the_mechanism(full):
    """[SEP] is a sink, its followers are tagged, and the tag is read by a rank-one W_QK."""
    _, found = full
    ok = found.found
    assert np.median(found.sink[ok]) > 0.99
    assert np.abs(found.tag_gap[ok]).min() > 1
    assert np.median(found.ratio_QK[ok]) < 0.02
    assert np.median(found.s_tag[ok]) > 10
    np.testing.assert_allclose(np.median(found.W_V2[ok], axis=0), [1, 0], atol=0.05)


def test_low_rank_is_not_reproduced_for_w_v1(full):
    """The paper's W_V1 has rank one; the trained one keeps a second direction."""
    _, found = full
    assert np.median(found.ratio_V1[found.found]) > 0.1


def test_default_init_runs_and_is_reported_as_it_is():
    recipe = replace(PRESETS["default-init"], seeds=8, steps=500, checkpoints=5)
    trained = train(recipe)
    found = diagnose(trained, sequences=512)
    assert (trained.diverged_at[~found.finite] >= 0).all()
    assert np.isfinite(found.fvu[found.finite]).all()
    assert np.isfinite(trained.history.loss[found.finite]).all()


def test_reproducible_and_independent_of_checkpoints():
    told = []
    first = train(SMALL, advance=told.append)
    assert told == first.history.step.tolist() == [10, 20, 30, 40, 50, 60]
    again, coarse = train(SMALL), train(replace(SMALL, checkpoints=2))
    other = train(replace(SMALL, seed=1))
    for ours, same, fewer, theirs in zip(
        first.weights, again.weights, coarse.weights, other.weights, strict=True
    ):
        np.testing.assert_array_equal(ours, same)
        np.testing.assert_allclose(ours, fewer, rtol=1e-5, atol=1e-6)
        assert np.abs(ours - theirs).max() > 1e-3
    np.testing.assert_allclose(
        coarse.history.loss[:, 0], first.history.loss[:, :3].mean(axis=1), rtol=1e-5
    )
    np.testing.assert_array_equal(first.history.s_tag[:, -1], first.weights.s_tag)


def test_weights_too_large_for_a_product_are_recorded_without_a_warning():
    """The first step is some 1e30: W_Q2 W_K2^T overflows before the loss does."""
    trained = train(replace(SMALL, learning_rate=1e30, schedule="constant"))
    assert not np.isfinite(trained.history.sigma_QK).all()


def test_a_diverging_seed_is_told_apart():
    """Steps of 1e6 end in NaN for some seeds; each says when, and its losses stay visible."""
    trained = train(
        replace(SMALL, optimizer="sgd", learning_rate=1e6, schedule="constant", w_noise=3.0)
    )
    found = diagnose(trained, sequences=64)
    assert (trained.diverged_at >= 0).any()
    assert (found.finite == (trained.diverged_at < 0)).all()
    assert not found.found[~found.finite].any()
    bad = trained.diverged_at[~found.finite]
    for losses, step in zip(trained.history.loss[~found.finite], bad, strict=True):
        assert np.isfinite(losses[: step // 10]).all()
        assert not np.isfinite(losses[step // 10 :]).any()


@pytest.mark.parametrize("checkpoints", [0, -1, 7, 61])
def test_checkpoints_divide_steps(checkpoints):
    with pytest.raises(Refused, match="divide 60 steps"):
        train(replace(SMALL, checkpoints=checkpoints))


def test_initial_weights_follow_the_recipe():
    keys = jax.random.split(jax.random.key(0), 4000)
    for recipe in PRESETS.values():
        made = jax.vmap(lambda key, recipe=recipe: initial_weights(recipe, key))(keys)
        centre = Weights(
            s_num=np.asarray(0.0),
            s_tag=np.asarray(recipe.s_tag),
            W_V1=recipe.w_v1 * np.eye(2),
            W_Q2=recipe.w_qk * np.eye(2),
            W_K2=recipe.w_qk * np.eye(2),
            W_V2=recipe.w_v2 * np.eye(2, 1),
        )
        noise = [recipe.s_num_noise, recipe.s_tag_noise, *[recipe.w_noise] * 4]
        for values, middle, sd in zip(made, centre, noise, strict=True):
            # Five standard errors of a mean and of a standard deviation over 4,000 draws.
            np.testing.assert_allclose(values.mean(axis=0), middle, atol=5 * sd / 63 + 1e-5)
            np.testing.assert_allclose(values.std(axis=0), sd, atol=5 * sd / 89 + 1e-5)


def test_the_theorem_passes_its_own_diagnosis():
    """On bounded numbers, where one s serves all, the constructed weights are `found`."""
    recipe = replace(SMALL, data="uniform", seeds=2)
    weights = Weights(*(np.stack([f, f]).astype(np.float32) for f in theorem_weights(18.0)))
    nothing = History(np.zeros(0, int), *np.zeros((2, 2, 0)), *np.zeros((2, 2, 0, 2)))
    found = diagnose(Trained(recipe, weights, nothing, np.full(2, -1)))
    assert found.found.all()
    assert (found.fvu < 1e-4).all()
    np.testing.assert_allclose(found.tag_gap, 17.0, rtol=1e-3)
    np.testing.assert_allclose(found.rank_V1, 1.0, rtol=1e-6)
    np.testing.assert_allclose(found.rank_QK, 1.0, rtol=1e-6)


def test_effective_rank():
    assert effective_rank(np.array([2.0, 2.0])) == pytest.approx(2)
    assert effective_rank(np.array([3.0, 0.0])) == pytest.approx(1)
    p = np.array([0.75, 0.25])
    assert effective_rank(5 * p) == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    values = singular_values(np.array([[[3.0, 0.0], [0.0, -4.0]], [[np.nan, 0.0], [0.0, 1.0]]]))
    np.testing.assert_allclose(values, [[4, 3], [np.nan, np.nan]])
    assert np.isnan(effective_rank(values)[1])
