"""The probe finds what is planted, says chance where nothing is, and does not look at its fold."""

import numpy as np
import pytest

from experiments.parts.catch.linear_probe import correct

FOLD = np.arange(100) % 5


def planted(rng, *, strength, layers=3, at=1, d=23):
    label = rng.permutation(np.arange(100) % 2)
    features = rng.normal(size=(layers, 100, d))
    features[at] += strength * np.outer(2 * label - 1, rng.normal(size=d))
    return features, label


def test_finds_a_planted_direction_in_whichever_layer():
    for at in range(3):
        features, label = planted(np.random.default_rng(at), strength=2.0, at=at)
        assert correct(features, label, FOLD).mean() == 1.0


def test_says_chance_where_nothing_is_planted():
    right = []
    for seed in range(10):
        features, label = planted(np.random.default_rng(seed), strength=0.0)
        right.append(correct(features, label, FOLD).mean())
    assert np.mean(right) == pytest.approx(0.5, abs=0.06)


def test_a_fold_is_judged_by_labels_of_the_others_alone():
    features, label = planted(np.random.default_rng(3), strength=0.3)
    inside = FOLD != 2
    said = correct(features, label, FOLD)
    turned = np.where(inside, label, 1 - label)
    assert np.array_equal(correct(features, turned, FOLD)[~inside], ~said[~inside])


def test_features_that_do_not_vary_predict_the_commoner_label():
    label = (np.arange(100) % 10 < 7).astype(int)
    right = correct(np.ones((2, 100, 4)), label, np.arange(100) // 20)
    assert not right.any()  # nothing is said: a prediction of 0 has no sign


def test_scale_of_a_column_does_not_matter():
    features, label = planted(np.random.default_rng(5), strength=0.4)
    scaled = features * np.linspace(0.5, 8.0, features.shape[2])
    assert np.array_equal(correct(features, label, FOLD), correct(scaled, label, FOLD))
