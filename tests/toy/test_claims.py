"""Every claim holds in every setting, and would not hold of other weights."""

import numpy as np
import pytest

from toy import bounds, claims
from toy.claims import CLAIMS, Setting
from toy.transformer import theorem_weights

SHAPES = [(16, 6), (2, 1), (13, 1), (13, 12), (31, 17)]
WEIGHTS = [(0.0, 1.0), (0.3, 1.0), (-0.7, 0.2)]
ABOVE = [0.5, 6.0, 15.0, 40.0]


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize(("T", "t"), SHAPES)
def test_measured_meets_predicted(name, T, t):
    claim = CLAIMS[name]
    for b, d in WEIGHTS:
        least = bounds.smallest_s_tag(T, t, 2.0, b=b, d=d)
        for above in ABOVE:
            setting = Setting(T, t, 2.0, least + above, b, d, draws=40)
            gap = abs(claim.measured(setting) - claim.predicted(setting))
            assert gap <= claim.tolerance(setting), setting


MUTATIONS = {
    "limit": {"W_K2": np.zeros((2, 2))},
    "sink": {"s_tag": np.asarray(2.0)},
    "tag": {"W_V1": np.diag([0.0, -1.01])},
    "no tag before": {"W_V1": np.diag([0.0, -0.99])},
    "[SEP] erased": {"W_V1": np.zeros((2, 2))},
    "outlier feature": {"W_V1": np.zeros((2, 2))},
    "uniform readout": {"W_K2": np.array([[0.0, 0.3], [0.0, 1.0]])},
    "rank of W_V1": {"W_V1": np.diag([0.1, -1.0])},
    "rank of W_QK": {"W_Q2": np.eye(2), "W_K2": np.eye(2)},
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_can_fail(name, monkeypatch):
    def mutated(*at):
        return theorem_weights(*at)._replace(**MUTATIONS[name])

    monkeypatch.setattr(claims, "theorem_weights", mutated)
    claims._observe.cache_clear()
    setting, claim = Setting(), CLAIMS[name]
    gap = abs(claim.measured(setting) - claim.predicted(setting))
    claims._observe.cache_clear()
    assert gap > claim.tolerance(setting)


def test_tolerances_are_worth_something():
    """At s = 30 nothing is tolerated that a reader could see in a picture."""
    setting = Setting(s_tag=30.0)
    assert all(claim.tolerance(setting) < 1e-6 for claim in CLAIMS.values())
