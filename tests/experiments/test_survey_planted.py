"""The survey of planted models: what was planted in every kind's row, nothing in the controls."""

import pytest

from experiments.intervals import Interval
from experiments.probing.survey import Survey, survey
from experiments.probing.survey_sections import sections
from mech.planted.build import Planted, planted
from mech.planted.plan import RAISED, Size

SEEDS = (1, 2, 3)
SMALL = Size()


@pytest.fixture(scope="module", params=SEEDS)
def plants(request) -> tuple[Planted, Survey]:
    made = planted(request.param, SMALL)
    return made, survey(made.model, made.tokens)


def rule(found: Survey, name: str) -> set[int]:
    return set(next(r.dims for r in found.rules if name in r.name))


def test_the_secondary_sinks_are_found_in_the_planted_span(plants):
    """By the paper's span and by the phase: also of a primary sink that block 0 writes."""
    made, found = plants
    plan = made.plan
    later = int((made.tokens == RAISED).sum())
    assert [place.name for place in found.places] == ["strict", "phase 1"]
    for place in found.places:
        assert tuple(place.span) == (plan.created, plan.end)
        assert place.agreed == 1
        assert place.count is not None
        assert place.count.mean == later / len(made.tokens)
        assert place.kinds["secondary"] == place.count
        assert place.levels == [(plan.raised, plan.erased - plan.raised, later)]
        assert place.maker == plan.raised


def test_the_outlier_feature_is_the_planted_one_and_not_the_massive_dimensions(plants):
    made, found = plants
    assert rule(found, "medians") == rule(found, "|x| ≥ 6") == {made.plan.outlier}
    # The planted feature is the same at all tokens: it does not deviate, and nothing else does.
    assert not rule(found, "deviation") & set(made.plan.primary)


def test_every_massive_activation_has_its_writer_and_its_end_in_every_prompt(plants):
    made, found = plants
    plan = made.plan
    first = [kind for kind in found.massive.kinds if kind.at_first]
    assert {kind.dim for kind in first} == set(plan.primary)
    for kind in first:
        assert (kind.writer, kind.death, kind.agreed) == (plan.created, plan.end, 1)
        life = plan.end - plan.created
        assert kind.lifetime == Interval(life, life, life, len(made.tokens))


@pytest.mark.parametrize("kind", ["uniform", "local"])
@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_primary_sink_there_is_no_secondary_one(kind, seed):
    """One outlier feature makes all states alike; the paper's span would hold every token."""
    made = planted(seed, SMALL, kind=kind)
    found = survey(made.model, made.tokens)
    assert found.places == []
    kinds = [row for row in sections(found)[0].tables[0].rows if row[0] == "secondary"]
    assert [row[2:4] for row in kinds] == [("0", "0 to 0")]
    assert found.sinks.by_reach_first is not None
    assert found.sinks.by_reach_first.mean == 0
    assert found.sinks.by_reach_later is not None
    assert found.sinks.by_reach_later.mean == 0


def test_a_window_in_a_model_without_preference_makes_no_sinks():
    made = planted(1, SMALL, kind="uniform", window=24)
    seen = survey(made.model, made.tokens).sinks
    assert seen.windowed == list(range(SMALL.layers))
    assert seen.by_reach_first is not None
    assert seen.by_reach_later is not None
    assert seen.by_reach_first.mean == seen.by_reach_later.mean == 0
