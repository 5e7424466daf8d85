"""Every probe finds what was planted, all of it and nothing else; controls have nothing to find."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.recovery import Tally, compare, look, recover
from experiments.recovery_controls import SHORT, WINDOW, controls
from experiments.recovery_tags import effects, recover_tags
from mech.planted.build import Planted, planted
from mech.planted.plan import Size

SMALL = Size()
SIZES = [
    SMALL,
    SMALL,
    Size(layers=9, heads=5, kv_heads=5, d_model=75, d_head=12, seq=131),
    Size(layers=12, heads=8, kv_heads=4, d_model=128, vocabulary=101),
]
EMPTY = {"sinks at other tokens"}


def misses(tallies: list[Tally]) -> dict[str, Tally]:
    return {tally.plant: tally for tally in tallies if not tally.whole}


def everything(made: Planted) -> list[Tally]:
    blocks = look(made)
    return [*recover(made, blocks), *recover_tags(made, blocks)]


@pytest.fixture(scope="module")
def small():
    """(planted, its blocks)."""
    made = planted(0, SMALL, batch=2)
    return made, look(made)


@pytest.mark.parametrize("seed", range(20, 30))
def test_all_plants_are_found_and_nothing_else(seed):
    made = planted(seed, SIZES[seed % 4], batch=2)
    found = everything(made)
    assert misses(found) == {}
    assert {tally.plant for tally in found if tally.planted == 0} == EMPTY


@pytest.mark.parametrize("kind", ["uniform", "local", "massive"])
def test_models_without_a_sink_or_a_tag_have_none(kind):
    made = planted(1, SMALL, kind=kind, batch=2)
    found = everything(made)
    assert misses(found) == {}
    states = {
        "outlier feature: 6 medians",
        "outlier feature: int8 rule",
        "span of the primary sink",
    }
    massive = {
        "massive activations: author and end",
        "secondary sinks: level and class",
        "secondary sinks: the MLP wrote them",
    }
    there = {tally.plant for tally in found if tally.planted}
    assert there == states | (massive if kind == "massive" else set())


@pytest.mark.parametrize(
    ("wrong", "plant"),
    [
        ({"erased": 6}, "secondary sinks: level and class"),
        ({"raised": 1}, "secondary sinks: level and class"),
        ({"end": 5}, "massive activations: author and end"),
        ({"created": 2}, "span of the primary sink"),
        ({"outlier": 1}, "outlier feature: 6 medians"),
        ({"primary": (1, 2)}, "massive activations: author and end"),
        ({"catch": (2, 3)}, "tagging heads"),
        ({"roles": (("uniform",) * 4,) * 8}, "dormant heads: by output"),
        ({"roles": (("dormant",) * 4,) * 8}, "sink-specialised heads"),
    ],
)
def test_another_truth_is_not_found(small, wrong, plant):
    """A tally compares with the plan: one field that is not so, and it is not whole."""
    made, blocks = small
    assert getattr(made.plan, next(iter(wrong))) != next(iter(wrong.values()))
    made = made._replace(plan=replace(made.plan, **wrong))
    asked = recover_tags if plant == "tagging heads" else recover
    assert plant in misses(asked(made, blocks))


def test_a_tally_counts_both_errors():
    truth, seen = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert compare("x", truth, seen) == ("x", 2, 1, 1)
    assert not compare("x", truth, truth | seen).whole
    assert not compare("x", truth, truth & seen).whole
    assert compare("x", truth, truth).whole


def test_equation_1_claims_sinks_where_there_are_none_and_its_guards_do_not():
    found = {claim.control: claim for claim in controls(0, SMALL)}
    assert all(claim.countable == 0 for claim in found.values())
    local = found["local attention"]
    # Each of the last nine keys of every head, and the tenth where rounding lifts it above 1/10.
    assert 9 * local.pairs <= local.raw == local.tail <= 10 * local.pairs
    short = found[f"uniform attention, the first {SHORT} tokens"]
    assert short.raw == short.guarded == short.pairs  # H_32 / 32 = 0.127 at the first key
    windowed = found[f"uniform attention, a window of {WINDOW}"]
    assert windowed.guarded == 2 * windowed.pairs  # of the first two keys, whatever the length
    # One outlier feature makes all states alike: the paper's span then holds every token.
    assert found["uniform attention"].strict == SMALL.seq - 1
    assert found["uniform attention"].phases == found["local attention"].phases == 0


@pytest.mark.parametrize("seed", [40, 43])
def test_the_reader_follows_the_tags_as_predicted(seed):
    """Removed, swapped, carried to others: it reads other tokens; controls hardly move it."""
    found = {effect.edit: effect for effect in effects(planted(seed, SIZES[seed % 4], batch=2))}
    for name, effect in found.items():
        if not name.startswith("control"):
            assert effect.predicted > 0.5
            assert effect.error < 0.05, name
    assert found["control: other tokens' values"].measured < 1e-4
    assert found["control: random direction"].measured < 0.5
