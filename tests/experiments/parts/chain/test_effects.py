"""Effects beyond controls, shares that a mediator carries, and the planted chain."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.findings import BELOW_ZERO
from experiments.ledger.claims import CLAIMS
from experiments.parts.chain import effects as chain_effects
from experiments.parts.chain import planted as chain_planted
from experiments.parts.chain.effects import POWER, carried, detectable, kind, later
from experiments.parts.chain.links import (
    BLOCK,
    HOLDS,
    LINKS,
    LOW_RANK,
    SINKS,
    TAGS,
    Trial,
    trials,
)
from experiments.parts.chain.measure import DENSE, measured
from experiments.parts.chain.pictures import pictures
from experiments.progress import Progress

CAUSE, HELD = Trial(SINKS, BLOCK), Trial(SINKS, BLOCK, held=TAGS)


def made(carries, sign=-1.0, n=12, noise=0.0):
    """Values in which the mediator carries that share of an effect of about `sign`."""
    draw = np.random.default_rng(0)
    dense = draw.standard_normal(n)
    effect = sign * (1 + 0.1 * draw.random(n))
    left = (1 - carries) * effect + noise * draw.standard_normal(n)
    values = {DENSE.key: dense, CAUSE.key: dense + effect, HELD.key: dense + left}
    return {key: {"nats": value} for key, value in values.items()}


@given(carries=st.floats(-1, 2), sign=st.sampled_from([-3.0, -0.2, 0.5, 4.0]))
def test_the_share_is_what_the_mediator_carries_whatever_the_sign(carries, sign):
    found = carried(made(carries, sign), CAUSE.key, HELD.key, "nats")
    assert found is not None
    assert found.mean == pytest.approx(carries, abs=1e-9)
    assert found.low <= found.mean + 1e-9
    assert found.high >= found.mean - 1e-9


def test_sequences_without_a_number_are_left_out_of_pairs():
    found = made(0.25)
    found[HELD.key]["nats"][3] = math.nan
    effect = carried(found, CAUSE.key, HELD.key, "nats")
    assert effect is not None
    assert effect.n == 11
    assert effect.mean == pytest.approx(0.25)


def test_where_nothing_happened_nothing_is_carried():
    found = made(1.0)
    draw = np.random.default_rng(1)
    found[CAUSE.key]["nats"] = found[DENSE.key]["nats"] + draw.standard_normal(12)
    assert carried(found, CAUSE.key, HELD.key, "nats") is None
    untested = chain_effects.through(
        kind("text", found), "ours/chain/sinks-through-tags", CAUSE, TAGS, "nats"
    )
    assert untested.verdict == "untested"
    assert "clear of 0" in untested.note


def test_an_effect_is_taken_beside_its_control():
    found = made(0.5)
    control = next(t for t in trials((SINKS,)) if t.control)
    found[control.key] = {"nats": found[CAUSE.key]["nats"] + 0.3}
    (finding,) = chain_effects.beyond(kind("text", found), "c", SINKS, BLOCK, "nats", BELOW_ZERO)
    assert finding.effect is not None
    assert finding.effect.mean == pytest.approx(-0.3)
    assert control.name in finding.control


def test_power_is_that_of_a_normal_test():
    """Of effects of this size four in five are seen at 5%."""
    draw = np.random.default_rng(0)
    n, hits = 40, []
    for _ in range(2000):
        noise = draw.standard_normal(n)
        size = POWER / math.sqrt(n)
        hits.append(abs(noise.mean() + size) * math.sqrt(n) / noise.std(ddof=1) > 1.96)
    assert np.mean(hits) == pytest.approx(0.8, abs=0.03)
    assert detectable(np.array([1.0, -1.0, math.nan])) == pytest.approx(POWER)


def test_every_finding_has_a_claim_and_every_claim_a_finding():
    """From values that say nothing, of both kinds of sequences."""
    asked = trials(LINKS)
    draw = np.random.default_rng(0)
    names = {
        "text": ["outliers", "sinks", "tags", "segments", "nats"],
        "labels": ["outliers", "sinks", "labels: accuracy", "labels: nats"],
    }
    kinds = [
        kind(
            which, {t.key: {m: draw.standard_normal(6) for m in measures} for t in (DENSE, *asked)}
        )
        for which, measures in names.items()
    ]
    found = chain_effects.findings(kinds)
    mine = {key for key in CLAIMS if key.startswith("ours/chain/") and "planted" not in key}
    assert {finding.claim for finding in found} == mine
    cases = [(finding.claim, finding.case) for finding in found]
    assert len(set(cases)) == len(cases)
    drawn = {p.name for p in pictures(found)}
    broken = {f.case.partition(":")[0] for f in found if "through" in f.claim and f.effect}
    shares = {f"chain-shares-{link.replace(' ', '-')}" for link in broken}
    assert shares
    assert drawn == {"chain", "chain-loss", "chain-accuracy"} | shares
    for table in chain_effects.tables(kinds):
        assert len(table.rows) == 2 + len(asked)
    assert later(kinds[0].found[DENSE.key]) == names["text"]


def test_what_is_held_is_never_what_is_broken():
    for (link, way), mediators in HOLDS:
        assert link not in mediators
        assert not Trial(link, way).control
    keys = [trial.key for trial in trials(LINKS)]
    assert len(set(keys)) == len(keys)
    assert not any(trial.weights for trial in trials((SINKS, TAGS)))


@pytest.fixture(scope="module")
def known():
    return chain_planted.planted(3, LINKS, Progress())


def test_the_planted_chain_is_found(known):
    """Every link, all that goes through it, and nothing that goes elsewhere."""
    assert {finding.verdict for finding in known.findings} == {"shown"}
    assert len(known.findings) == 13
    dense = known.kinds[0].found[DENSE.key]
    for name in ("outliers", "sinks", "tags"):
        np.testing.assert_allclose(dense[name], 1)
    assert dense["segments"].min() > 0.95
    assert dense[chain_planted.END].max() < 0.1


def test_a_wrong_aim_finds_no_chain():
    """Tags removed from a head that writes none: the reader reads on."""
    from mech.planted.build import planted

    one = planted(0)
    aim = chain_planted.aim_of(one)
    head = (one.plan.catch[1] + 1) % one.plan.size.heads
    wrong = aim._replace(heads=(head,), places=((one.plan.catch[0], head),))
    asked = trials((TAGS,))[:1]
    units = chain_planted.units_of(one)
    errors = [
        measured(one.model, units, which, asked, {}, lambda _: None)[asked[0].key][
            chain_planted.END
        ]
        for which in (aim, wrong)
    ]
    assert errors[0].mean() > 0.9
    assert errors[1].mean() < 0.1


def test_the_low_rank_link_is_broken_in_front_of_the_reader_only(known):
    broken = known.kinds[0].found[Trial(LOW_RANK, "top component gone").key]
    assert broken["sinks"].max() < 0.5
    assert broken[chain_planted.END].min() > 0.5
