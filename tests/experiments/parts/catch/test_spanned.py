"""Shares of variance: what is planted is found, and no directions beat principal components."""

import numpy as np
import pytest

from experiments.parts.catch.spanned import of_head, over_sequences, share


def test_share_is_one_inside_the_span_and_zero_across_it():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(11, 11)))[0]
    x = rng.normal(size=(7, 2)) @ axes[:2]
    assert share(x, axes[:2] * 5) == pytest.approx(1.0)
    assert share(x, axes[2:5]) == pytest.approx(0.0, abs=1e-12)
    assert share(x, np.concatenate([axes[:2], axes[:1]])) == pytest.approx(1.0)  # one twice
    assert np.isnan(share(x * 0, axes[:2]))


def test_outputs_that_are_tags_and_noise_are_told_apart():
    rng = np.random.default_rng(1)
    tags = rng.normal(size=(2, 13))
    weight = rng.uniform(size=(50, 2))
    noise = 0.3 * rng.normal(size=(50, 13))
    found = of_head(weight @ tags + noise, weight @ tags, tags, rng.normal(size=(30, 13)), rng)
    in_tags, random, best, written, length = found
    assert best >= in_tags > random
    assert best >= random
    centred = noise - noise.mean(axis=0)
    whole = weight @ tags + noise
    total = ((whole - whole.mean(axis=0)) ** 2).sum()
    assert written == pytest.approx(1 - (centred**2).sum() / total)
    assert 0 <= length <= 1


def test_a_head_that_writes_the_same_everywhere_has_no_share():
    rng = np.random.default_rng(2)
    found = of_head(np.ones((9, 5)), np.ones((9, 5)), np.ones((1, 5)), np.ones((4, 5)), rng)
    assert np.isnan(found).all()


def test_means_are_over_the_sequences_that_have_a_sink():
    values = np.array([[[1.0, np.nan], [3.0, 5.0]]])
    assert over_sequences(values).tolist() == [[2.0, 5.0]]
    assert over_sequences(values, 2).tolist() == [[2.0, 0.0]]
