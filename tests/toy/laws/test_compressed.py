"""Compressing one matrix of the toy: the methods, and their cost against the closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toy.laws.compressed import against_bound, constructed, study
from toy.laws.interventions import (
    INTERVENTIONS,
    equal_noise,
    magnitude,
    quantised,
    truncated,
    wanda,
)
from toy.laws.measure import look, product, stacked, target, with_product
from toy.laws.residuals import crowds
from toy.laws.sensitivity import MATRICES, at_theorem, hessians, predicted
from toy.laws.tails import draw
from toy.transformer import theorem_weights

ONES = np.ones((1, 2))
matrices = st.lists(st.floats(-5, 5), min_size=4, max_size=4).map(
    lambda entries: np.array(entries).reshape(1, 2, 2)
)


@given(W=matrices, kept=st.integers(0, 4))
def test_pruning_keeps_the_largest(W, kept):
    pruned = magnitude(W, ONES, ONES, kept=kept)
    dropped = np.abs(W[pruned != W])
    assert ((pruned == W) | (pruned == 0)).all()
    assert (pruned != 0).sum() <= kept
    if dropped.size and kept:
        assert dropped.max() <= np.sort(np.abs(W).ravel())[4 - kept]
    np.testing.assert_array_equal(wanda(W, ONES, ONES, kept=kept), pruned)


def test_wanda_weighs_rows_and_columns():
    W = np.array([[[3.0, 2.0], [2.0, 1.0]]])
    by_rows = wanda(W, np.array([[1.0, 9.0]]), ONES, kept=2)
    by_columns = wanda(W, ONES, np.array([[1.0, 9.0]]), kept=1)
    np.testing.assert_array_equal(by_rows, [[[0, 0], [2, 1]]])
    np.testing.assert_array_equal(by_columns, [[[0, 2], [0, 0]]])


@given(W=matrices, bits=st.integers(2, 8))
def test_quantisation_and_truncation(W, bits):
    if np.abs(W).max() < 1e-100:
        return
    levels = 2 ** (bits - 1) - 1
    step = np.abs(W).max() / levels
    near = quantised(W, ONES, ONES, bits=bits)
    assert np.abs(near - W).max() <= step * (0.5 + 1e-9)
    np.testing.assert_allclose(near / step, np.round(near / step), atol=1e-9)
    assert np.abs(near).max() <= levels * step * (1 + 1e-12)
    one = truncated(W, ONES, ONES, rank=1)
    sigma = np.linalg.svd(W[0], compute_uv=False)
    assert np.linalg.norm(one - W) == pytest.approx(sigma[1], abs=1e-9)
    np.testing.assert_allclose(
        INTERVENTIONS["without the first direction"](W, ONES, ONES) + one, W, atol=1e-12
    )
    assert not INTERVENTIONS["rank 0"](W, ONES, ONES).any()
    more = INTERVENTIONS["rank 1 + 1 entry"](W, ONES, ONES)
    assert np.linalg.norm(more - W) <= np.linalg.norm(one - W) + 1e-12


def test_noise_has_the_norm_of_the_change_and_every_direction():
    change = np.array([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [1.0, 0.0]]])
    noise = equal_noise(np.random.default_rng(0), change, 4000)
    np.testing.assert_allclose(
        np.linalg.norm(noise, axis=(2, 3)), np.broadcast_to([5, 1], (4000, 2))
    )
    # A uniform direction has squares of 1/4 with standard deviation below 1/4 each.
    np.testing.assert_allclose((noise[:, 0] ** 2).mean(axis=0) / 25, 0.25, atol=5 / 4 / 63)


def test_the_sensitivity_is_the_closed_form_at_the_theorem():
    s, gain = 22.0, 22.0
    drawn = draw(np.random.default_rng(3), "uniform", 300)
    weights = stacked([theorem_weights(s, 0.0, gain / (s - 1) ** 2)])
    found = hessians(with_product(weights, product(weights)), drawn)
    for matrix in MATRICES:
        exact = at_theorem(crowds(drawn), s, matrix)
        # Left out: unequal logits, gain r with r <= 31 e^{4 - s}, and the leak 31 e^-gain.
        room = 8 * ((1 + gain) * 31 * np.exp(4 - s) + 31 * np.exp(-gain))
        np.testing.assert_allclose(found[matrix][0], exact, atol=room * np.trace(exact))
        assert room < 1e-3


def test_a_small_change_costs_what_is_foreseen(weights):
    drawn = draw(np.random.default_rng(4), "gaussian", 200)
    base = with_product(weights, product(weights))
    base = base._replace(W_V1=np.asarray(base.W_V1, dtype=np.float64))
    found = hessians(base, drawn)
    f = look(base, drawn).output
    rng = np.random.default_rng(5)
    for matrix, field in (("W_V1", "W_V1"), ("M", "W_Q2")):
        W = np.asarray(getattr(base, field))
        change = 1e-6 * rng.standard_normal(W.shape)
        moved = look(base._replace(**{field: W + change}), drawn).output
        measured = ((moved - f) ** 2).mean(axis=1)
        # The second order, of relative size s^2 times the change.
        np.testing.assert_allclose(measured, predicted(found[matrix], change), rtol=1e-2)


def test_the_theorem_compressed_stays_within_its_bound():
    seen = study(constructed(2), tail="uniform", draws=1, sequences=100)
    spoken = [row.bound[np.isfinite(row.bound)] for row in seen.rows]
    assert sum(map(len, spoken)) > 20
    assert all((bound <= 1).all() for bound in spoken)
    rows = {(row.matrix, row.name): row for row in seen.rows}
    assert np.isnan(rows["W_V1", "rank 0"].bound).all()
    assert (rows["W_V1", "rank 1"].change == 0).all()
    assert (rows["M", "rank 1"].fvu < 1e-3).all()
    assert (rows["M", "rank 0"].fvu > 0.3).all()


def test_an_error_above_the_bound_is_seen():
    drawn = draw(np.random.default_rng(6), "uniform", 50)
    weights = constructed(2)
    weights = with_product(weights, product(weights))
    output = target(drawn) + np.array([[0.0], [2.0]])
    ratio = against_bound(weights, output, drawn)
    assert ratio[0] == 0
    assert ratio[1] > 1


def test_in_trained_seeds_an_entry_matters_and_not_the_rank(weights):
    """W_V1 of rank one is far worse than W_V1 with a single entry, which is also of rank one."""
    rows = {
        (row.matrix, row.name): row
        for row in study(weights, tail="gaussian", draws=1, sequences=300).rows
    }
    truncation, entry = rows["W_V1", "rank 1"], rows["W_V1", "Wanda, keep 1 of 4"]
    assert (entry.norm > truncation.norm).all()
    assert np.median(entry.change) < np.median(truncation.change) / 5
    assert np.median(rows["M", "rank 1"].change) < 0.01
