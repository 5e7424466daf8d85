"""The warm-up does what its formulas say, and then the task is the recipe's own."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toy.recipe import INGREDIENTS, PRESETS, Recipe
from toy.train import drawn
from toy.warmup import pulled, rate, shown

SMALL = replace(PRESETS["guided"], steps=50, batch=200, longest=17, seeds=3)


def test_guided_starts_from_the_draw_of_default_init():
    plain, guided = (drawn(replace(PRESETS[name], seed=5)) for name in ("default-init", "guided"))
    for ours, theirs in zip(guided, plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_without_its_ingredients_guided_is_default_init():
    stripped = replace(PRESETS["guided"], **dict.fromkeys(INGREDIENTS, 0.0), steps=4000)
    assert replace(stripped, warm_up=0.0) == PRESETS["default-init"]


@pytest.mark.parametrize("number", [0, 9, 10, 49])
def test_pulls_are_those_of_the_docstring(number):
    """lift 0.5 and decays 1 for the first 20% of 50 steps."""
    size = float(np.asarray(rate(SMALL)(number))) if number < 10 else 0.0
    assert (size > 0.02) == (number < 10)
    before = drawn(SMALL)
    after = pulled(SMALL, before, jnp.asarray(number))
    np.testing.assert_allclose(after.s_tag, before.s_tag + size * 0.5, rtol=1e-6)
    for name in ("s_num", "W_V1", "W_Q2", "W_K2", "W_V2"):
        wanted = np.asarray(getattr(before, name)) * (1 - size)
        np.testing.assert_allclose(getattr(after, name), wanted, rtol=1e-6, err_msg=name)


def test_without_a_warm_up_nothing_is_touched():
    weights = drawn(SMALL)
    assert pulled(Recipe(), weights, jnp.asarray(0)) is weights


def test_numbers_have_no_tails_at_first_and_then_have():
    key = jax.random.key(0)
    largest = [
        float(np.abs(shown(SMALL, key, jnp.asarray(number)).x).max()) for number in (0, 29, 30, 49)
    ]
    assert max(largest[:2]) <= np.sqrt(3)
    # 200 sequences of some 16 normal numbers: the largest is above 2.5 but once in 10^17.
    assert min(largest[2:]) > 2.5


def test_the_minibatch_is_that_of_the_task_afterwards():
    plain = replace(SMALL, first_share=0.0)
    key, number = jax.random.key(3), jnp.asarray(30)
    for ours, theirs in zip(shown(SMALL, key, number), shown(plain, key, number), strict=True):
        np.testing.assert_array_equal(ours, theirs)
