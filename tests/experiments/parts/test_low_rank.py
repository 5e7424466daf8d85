"""What the experiments on Low-rank share: counts of sinks, change of weights, swapped terms."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import random_text

from bridge.budget import Cost
from bridge.compression import Compression, Row
from experiments import naming
from experiments.findings import ABOVE_ZERO
from experiments.intervals import interval
from experiments.parts.low_rank import kept, segmented
from experiments.parts.low_rank.moved import moved
from experiments.parts.low_rank.strips import maps, strips
from experiments.parts.low_rank.swapped import CONTROLS, TERMS, swapped
from experiments.parts.panels import panels, points
from experiments.parts.work import SMALLEST, prepared
from experiments.progress import Progress
from experiments.settings import Budget, Reading
from mech.probes.sinks import SUPPORT


@given(st.integers(0, 2**32 - 1))
def test_counts_of_sinks_are_those_of_a_loop(seed):
    draw = np.random.default_rng(seed)
    flags = draw.random((3, 2, 5, 67)) < draw.random()
    found = kept.Sinks(flags)
    for sequence in range(2):
        entries = [tuple(entry) for entry in np.argwhere(flags[:, sequence])]
        assert found.raw[sequence] == len(entries)
        assert found.guarded[sequence] == sum(key < 67 - SUPPORT for _, _, key in entries)
    own = found.of(found)
    np.testing.assert_array_equal(own.later_recall.part, own.later_recall.whole)


def test_a_share_of_no_sinks_is_untested_and_says_why():
    found = kept.finding("low-rank/figure-2/kept", "oats", None, "of them", ABOVE_ZERO, "wanda")
    assert found.verdict == "untested"
    assert "no such sinks" in found.note


def _row(name: str, shape: tuple[int, int], delta_w: float, error: float) -> Row:
    size = shape[0] * shape[1]
    return Row(name, shape, Cost(size, size // 2, 0, 0, 0), delta_w, error, 0.0)


def test_change_of_a_block_weighs_linears_by_their_parameters():
    rows = (
        _row("layers.10.a", (2, 3), 1.0, 0.2),
        _row("layers.10.b", (2, 9), 3.0, 0.4),
        _row("layers.9.a", (2, 3), 5.0, 0.7),
    )
    found = moved(Compression("none", rows, 1, {}))
    np.testing.assert_allclose(found.weight, [5.0, (6 * 1.0 + 18 * 3.0) / 24])
    np.testing.assert_allclose(found.scaled, [0.7, 0.3])
    assert found.density == pytest.approx(0.5)


def test_points_are_intervals_and_are_drawn():
    values = [np.array([0.0, 1.0, 5.0]), np.array([2.0, 2.0, 2.0])]
    found = points(values)
    np.testing.assert_array_equal(found, [interval(v)[:3] for v in values])
    canvas = panels(["0", "1"], {"one": {"a": found}, "two": {"a": found}}, "x", mark=0.0)
    assert [axes.get_ylabel() for axes in canvas.axes] == ["one", "two"]


@given(st.integers(0, 2**32 - 1))
def test_means_over_places_leave_out_what_is_not_there(seed):
    draw = np.random.default_rng(seed)
    values = np.where(draw.random((3, 7)) < 0.4, np.nan, draw.random((3, 7)))
    for found, column in zip(segmented._mean(values), values.T, strict=True):
        there = [value for value in column if not math.isnan(value)]
        assert math.isnan(found) if not there else math.isclose(found, sum(there) / len(there))


def test_pictures_have_a_row_and_a_map_a_model():
    look = segmented.Look(np.tril(np.ones((5, 5))), np.full((5, 3), 0.5))
    shown = segmented.Shown(["a", "\n", "$", " ", "b"], np.array([0, 2]))
    assert len(strips({"dense": look, "oats": look}, shown).axes) == 2
    assert len(maps({"dense": look, "oats": look}, shown).axes) == 4


def test_terms_stand_in_turn_and_the_model_is_as_before(model, tmp_path):
    random_text(tmp_path / "text.txt", 0)
    reading = Reading(str(model), tmp_path / "text.txt")
    work = prepared(reading, replace(SMALLEST, blocks=0), Progress())
    before = {name: value.clone() for name, value in work.loaded.model.state_dict().items()}
    scores = {"dense": kept.read(work).flags}
    removed = {}
    names = (*TERMS, *CONTROLS)
    for name, share in swapped(work, Budget(), "*.self_attn.[qk]_proj", names, Progress()):
        removed[name], scores[name] = share, kept.read(work).flags
    assert tuple(removed) == names
    assert removed[naming.BOTH] < removed[naming.PLAIN] < removed[naming.SPARSE]
    assert removed[naming.AS_FAR] <= removed[naming.SPARSE] * (1 + 1e-5)
    after = work.loaded.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
