"""Every picture that `ctr experiment` draws, at its smallest, with the numbers behind it."""

import importlib
from typing import Any

import numpy as np
import pytest

from experiments import report
from experiments.commands import COMMANDS
from experiments.figures import animation, limits, mechanism
from experiments.figures.stages import observe
from experiments.progress import Progress
from experiments.settings import BadOption

SMALLEST = {
    "mechanism": {"T": 7, "t": 3},
    "limits": {"T": 7, "t": 3},
    "bound": {"T": 7, "t": 3, "scales": 4, "starts": 5},
    "frontier": {"sequences": 200},
    "ranks": {"seeds": 4, "steps": 800},
    "atlas": {"seeds": 5, "steps": 20},
    "animation": {"T": 7, "t": 3, "frames": 3},
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """A sweep leaves its state where it is asked."""
    monkeypatch.chdir(tmp_path)


def ask(name: str, **options):
    module = importlib.import_module(f"experiments.figures.{name}")
    return module, module.run(module.Config(**options), Progress())


def test_every_experiment_is_listed_here():
    pictures = {name for name, c in COMMANDS.items() if c.module.startswith("experiments.figures")}
    listed = {name.removeprefix("experiment ") for name in pictures}
    # Prompts are of a real model: pictured in test_probe.py, and not from numbers alone.
    assert listed - {"prompts"} == set(SMALLEST)


@pytest.mark.parametrize("name", SMALLEST)
def test_an_experiment_leaves_a_page_and_both_files_of_each_picture(name, tmp_path):
    module, result = ask(name, **SMALLEST[name])
    sections = module.sections(result)
    report.write(tmp_path, name, sections, {})
    pictures = [picture.name for section in sections for picture in section.pictures]
    assert pictures
    for picture in pictures:
        for suffix in (".svg", ".png"):
            assert (tmp_path / "pictures" / picture).with_suffix(suffix).stat().st_size > 1000


def test_the_control_has_the_sink_and_not_the_tag():
    _, result = ask("mechanism", T=9, t=4, s_tag=20.0)
    theorem, control = result.theorem, result.untagged
    assert theorem.sink == control.sink > 0.999
    assert abs(theorem.output - theorem.target) < 1e-3
    np.testing.assert_allclose(theorem.tags, 19, atol=0.01)
    np.testing.assert_array_equal(control.tags, -1)
    assert control.readout[3] > 0.99  # [SEP]'s outlier was not erased, and is what is read
    np.testing.assert_allclose(theorem.uniform, [0, 0, 0, 0, *[1 / 5] * 5])


def test_the_defects_lie_between_their_bounds_and_have_the_stated_rates():
    _, result = ask("limits", T=9, t=4)
    assert (result.after <= result.after_bound * (1 + 1e-12)).all()
    assert (result.after >= result.after_lower * (1 - 1e-12)).all()
    assert (result.before == 0).all()
    seen = result.itself > 1e-12
    np.testing.assert_allclose(result.itself[seen], result.itself_exact[seen], rtol=1e-12)
    assert -1.05 < limits.slope(result.s_tag, result.after) < -0.9


@pytest.mark.parametrize("power", [-1.0, -2.5])
def test_the_slope_of_an_exponential_is_its_rate(power):
    s = np.linspace(1, 20, 50)
    assert limits.slope(s, 3 * np.exp(power * s)) == pytest.approx(power)


def test_sep_first_has_no_row_to_draw():
    module, result = ask("limits", T=5, t=1)
    assert (result.itself == 0).all()
    assert len(module.sections(result)[0].tables[0].rows) == 2


def test_the_bounds_hold_and_the_sharper_one_lies_between():
    _, result = ask("bound", T=7, t=3, scales=5, starts=6)
    assert (result.worst <= result.sharper * (1 + 1e-9)).all()
    assert (result.sharper <= result.theorem * (1 + 1e-9)).all()
    assert (result.typical < result.worst).all()
    # Past saturation (s > 1 + X^2 + log T + log 2^24, about 22) float32 reports its rounding.
    assert result.float32[-1] < 1e-6
    assert result.float32[-1] / result.worst[-1] != pytest.approx(1, rel=0.01)


def test_frames_share_their_axes():
    _, result = ask("animation", T=7, t=3, frames=3)
    first, last = (animation.draw(result, index).axes for index in (0, 2))
    for before, after in zip(first[1:], last[1:], strict=True):
        assert before.get_xlim() == after.get_xlim()
        assert before.get_ylim() == after.get_ylim()
    assert result.s_tag[0] == 1.05
    assert result.s_tag[-1] == 14


def test_no_bar_leaves_the_picture():
    _, result = ask("animation", T=7, t=3, frames=4)
    top = animation.draw(result, 0).axes[2].get_ylim()[1]
    assert all(stages.readout.max() < top for stages in result.stages)


def test_a_rate_is_told_from_the_fewest_scales():
    module, result = ask("limits", T=5, t=2, highest=200.0)
    assert -1.05 < module.slope(result.s_tag, result.after) < -0.9


def test_a_scale_without_error_is_left_out_of_the_ratios():
    """At T = 2, s_tag = 30 the error is below every float64: 0 / 0 is no tightness."""
    module, result = ask("bound", T=2, t=1, scales=2, starts=5)
    assert result.worst[-1] == 0
    table = module.sections(result)[0].tables[0]
    assert "n = 1 scales" in table.caption
    assert float(table.rows[0][1]) >= 1


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("mechanism", {"t": 16}, "--t"),
        ("mechanism", {"t": 0}, "--t"),
        ("mechanism", {"T": 1}, "--T"),
        ("mechanism", {"X": 0.0}, "--X"),
        ("mechanism", {"s_tag": 1e200}, "--s-tag"),
        ("mechanism", {"s_tag": 1.0}, "--s-tag"),
        ("limits", {"highest": 1.0}, "--highest"),
        ("limits", {"highest": 1e3}, "--highest"),
        ("bound", {"d": 0.0}, "--d"),
        ("bound", {"starts": 1}, "--starts"),
        ("animation", {"frames": 1}, "--frames"),
        ("animation", {"lowest": 1.0}, "--lowest"),
        ("animation", {"lowest": 15.0}, "--lowest"),
    ],
)
def test_a_bad_option_is_named(name, options, word):
    with pytest.raises(BadOption, match=word):
        ask(name, **options)


def test_stages_refuse_what_the_theorem_does(monkeypatch):
    from toy.errors import NoSegment, ScaleTooSmall

    with pytest.raises(ScaleTooSmall):
        observe(np.ones(4), 2, 1.0)
    with pytest.raises(NoSegment):
        observe(np.ones(4), 4, 3.0)


def test_the_picture_shows_the_numbers():
    _, result = ask("mechanism", T=9, t=4)
    axes: Any = mechanism.draw(result).axes
    np.testing.assert_array_equal(axes[0].images[0].get_array(), result.theorem.pattern)
    heights = [patch.get_height() for patch in axes[2].patches[:9]]
    np.testing.assert_allclose(heights, result.theorem.readout)
