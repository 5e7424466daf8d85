"""Every claim holds on all of its cases, and would not hold of other weights or constants."""

import numpy as np
import pytest

from toy import claims
from toy.claims import CLAIMS, Claim, Found
from toy.errors import Refused
from toy.statements import literal, sufficiency

LOOSE = {
    "sink of [SEP]", "no tag before", "rank of W_V1", "rank of W_QK",  # equalities, over rounding
    "N2 (ii): the sink", "N2 (iii): the outlier",
}  # fmt: skip
"""Statements that no case comes within 5 % of."""


@pytest.mark.parametrize("name", CLAIMS)
def test_no_case_refutes_it(name, measured):
    found = claims.examine(CLAIMS[name], np.random.default_rng([1, *name.encode()]), 1500)
    assert found.cases >= 1500
    assert found.violations == 0
    if name not in LOOSE:
        assert found.largest * 1.05 > 1
    else:
        measured(f"claim {name!r}, largest ratio", f"{found.largest:.4f}", "at most 1")


MUTATIONS = {
    "limit": {"QK2": np.array([[0.0, 0.0], [0.0, 0.0]])},
    "corollary": {"QK2": np.array([[0.0, 0.0], [0.0, 0.0]])},
    "sink": {"QK1": np.diag([1.0, 0.95])},
    "sink of [SEP]": {"QK1": np.diag([1.0, 0.95])},
    "tag": {"V1": np.diag([0.0, -1.05])},
    "no tag before": {"V1": np.diag([0.0, -0.99])},
    "[SEP] erased": {"V1": np.diag([0.0, -0.95])},
    "outlier feature": {"V1": np.diag([0.0, -0.95])},
    "uniform readout": {"QK2": np.array([[0.0, 0.3], [0.0, 1.0]])},
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_claim_can_fail(name, monkeypatch):
    right = literal.run
    wrong = MUTATIONS[name]
    monkeypatch.setattr(
        sufficiency.literal, "run", lambda model, e: right(model._replace(**wrong), e)
    )
    assert claims.examine(CLAIMS[name], np.random.default_rng(0), 300).violations > 0


@pytest.mark.parametrize("name", ["rank of W_V1", "rank of W_QK"])
def test_a_rank_can_fail(name, monkeypatch):
    right = sufficiency.theorem_weights
    other = {"W_V1": np.diag([1e-9, -1.0]), "W_Q2": np.eye(2), "W_K2": np.eye(2)}
    monkeypatch.setattr(sufficiency, "theorem_weights", lambda *at: right(*at)._replace(**other))
    assert claims.examine(CLAIMS[name], np.random.default_rng(0), 3).violations == 3


def test_nan_is_a_violation_and_is_not_hidden():
    poisoned = Claim("", "", lambda rng, n: np.array([0.5, np.nan, 2.0]))
    cases, violations, largest = claims.examine(poisoned, np.random.default_rng(0), 3)
    assert (cases, violations) == (3, 2)
    assert np.isnan(largest)


def test_check_runs_them_all_and_says_so():
    told = []
    found = claims.check(30, seed=4, advance=told.append)
    assert list(found) == told == list(CLAIMS)
    assert found == claims.check(30, seed=4)
    assert found["limit"] != claims.check(30, seed=5)["limit"]
    one = {"always": Claim("", "", lambda rng, n: np.zeros(n))}
    assert claims.check(7, claims=one) == {"always": Found(7, 0, 0.0)}


def test_no_cases_prove_nothing():
    with pytest.raises(Refused, match="at least 1"):
        claims.check(0)
