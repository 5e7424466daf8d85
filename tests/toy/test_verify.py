"""The numbers that the command reports, at a smaller n; and that its search finds what is there."""

import numpy as np

from toy import theorem, verify


def test_agreement_to_1e_12():
    found = verify.agreement(n=200, seed=5)
    assert found.worst < 1e-12
    assert (found.n, found.seed) == (200, 5)


def test_agreement_notices_a_wrong_form(monkeypatch):
    right = theorem.output
    monkeypatch.setattr(verify.theorem, "output", lambda x, t, **at: right(x, t, **at) * (1 + 1e-9))
    assert verify.agreement(n=20).worst > 1e-12


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
