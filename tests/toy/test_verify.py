"""The numbers that the command reports, at a smaller n; and that its search finds what is there."""

import numpy as np
import pytest

from toy import bounds, theorem, verify
from toy.adversary import starts_of, worst_inputs


def test_agreement_to_1e_12():
    found = verify.agreement(n=200, seed=5)
    assert found.worst < 1e-12
    assert (found.n, found.seed) == (200, 5)


def test_agreement_notices_a_wrong_form(monkeypatch):
    right = theorem.output
    monkeypatch.setattr(verify.theorem, "output", lambda x, t, **at: right(x, t, **at) * (1 + 1e-9))
    assert verify.agreement(n=20).worst > 1e-12


def test_bound_holds_and_is_not_loose():
    told = []
    found = verify.check_bound(n=400, adversarial=205, seed=1, advance=told.append)
    assert found.violations == 0
    assert told[-1] == 605
    assert (found.random_inputs, found.adversarial_inputs) == (400, 205)
    assert found.settings > 5
    assert (np.diff(found.tightness) >= 0).all()
    assert 1 - 1e-6 <= found.tightness[0] < 1.5
    assert found.tightness[2] < 5


def test_a_bound_that_is_too_small_is_caught(monkeypatch):
    right = bounds.error_bound
    monkeypatch.setattr(verify.bounds, "error_bound", lambda *a, **k: 0.95 * right(*a, **k))
    assert verify.check_bound(n=0, adversarial=300, seed=0).violations > 0


@pytest.mark.parametrize("seed", range(5))
def test_the_search_only_climbs(seed):
    at = {"s_tag": 9.0 + seed, "b": 0.3, "d": 0.5}
    found = worst_inputs(11, 4, 1.5, **at, starts=9, seed=seed)
    assert (np.abs(found) <= 1.5).all()
    start = starts_of(np.random.default_rng(seed), 11, 4, 1.5, **at, n=9)
    climbed, began = (np.abs(theorem.residual(x, 4, **at)) for x in (found, start))
    assert (climbed >= began).all()
    assert (
        climbed.max()
        > np.abs(
            theorem.residual(np.random.default_rng(seed).uniform(-1.5, 1.5, (500, 11)), 4, **at)
        ).max()
    )


def test_saturation_is_where_floats_stop_telling():
    found = verify.saturation([12.0, 20.0, 30.0, 50.0])
    assert (found.error <= found.bound).all()
    assert (np.diff(found.error) < 0).all()
    # float64 follows the truth until it is rounding; float32 stops ten powers of ten earlier
    np.testing.assert_allclose(found.float64[:3], found.error[:3], rtol=1e-5)
    np.testing.assert_allclose(found.float32[0], found.error[0], rtol=1e-3)
    assert found.float32[2] < found.error[2]
    assert found.float64[3] < found.error[3] or found.float64[3] > 10 * found.error[3]


def test_every_case_outside_the_theorem_is_refused_by_name():
    found = {refusal.case: refusal for refusal in verify.refusals()}
    assert {case: refusal.name for case, refusal in found.items()} == {
        "t = T": "NoSegment",
        "t = 0": "NoSegment",
        "no tokens": "NoSegment",
        "s_tag = 1": "ScaleTooSmall",
        "x has a NaN": "NotFinite",
        "X = 0": "NoMagnitude",
        "q <= 0": "NonPositiveQuery",
        "d < 0": "NonPositiveQuery",
        "no mask": "NotCausal",
    }
    assert all("\n" not in refusal.message for refusal in found.values())


def test_all_together():
    found = verify.verify(10, random_inputs=40, adversarial_inputs=10)
    assert found.agreement.n == 10
    assert found.bound.violations == 0
    assert len(found.saturation.s_tag) == len(found.saturation.error) > 50
