"""Pictures show the numbers they are given, and text is escaped."""

from typing import Any

import numpy as np
import pytest

from experiments import pictures


def test_tokens_are_escaped_and_sinks_are_framed():
    html = pictures.coloured_tokens(
        "a < b", ["<script>", " cat"], np.array([[0.0, 0.5, 1.0], [1.0, 1.0, 1.0]]), np.array([1])
    )
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "a &lt; b" in html
    first, second = html.split("<span")[2:4]
    assert 'class="sink"' not in first
    assert 'class="sink"' in second
    assert "> cat</span>" in second


def test_black_letters_can_be_read_on_every_colour():
    """WCAG contrast of black on the darkest colour that a token can get: at least 4.5."""
    html = pictures.coloured_tokens("", ["x"], np.zeros((1, 3)), np.array([], dtype=int))
    red = int(html.split("rgb(")[1].split(",")[0])
    channel = red / 255
    luminance = ((channel + 0.055) / 1.055) ** 2.4
    assert (luminance + 0.05) / 0.05 >= 4.5


def test_the_map_marks_the_sinks():
    canvas = pictures.attention_map(["a", "b", "c"], np.eye(3), np.array([1]), "head")
    axes = canvas.axes[0]
    colours = [label.get_color() for label in axes.get_xticklabels()]
    assert colours[1] == pictures.RED
    assert pictures.RED not in (colours[0], colours[2])
    np.testing.assert_array_equal(axes.images[0].get_array(), np.eye(3))


@pytest.mark.parametrize("token", ["$$", "$x^$", " $", "a_b"])
def test_a_token_is_no_mathematics(token, tmp_path):
    canvas = pictures.attention_map([token, "b"], np.eye(2), np.array([0]), "head")
    canvas.savefig(tmp_path / "a.svg")
    # Drawn as it is, not typeset: the letters of the token stand in the picture.
    assert f">{token.strip()}</text>" in (tmp_path / "a.svg").read_text()


def test_bars_are_as_long_as_the_values():
    canvas = pictures.bars(["x", "y"], {"first": [0.25, 1.0], "later": [0.0, 0.5]}, "share", "")
    drawn: Any = canvas.axes[0].patches
    widths = [bar.get_width() for bar in drawn]
    assert widths == [0.25, 1.0, 0.0, 0.5]


def test_the_bound_is_drawn_only_where_a_log_scale_can():
    scale = np.array([2.0, 3.0, 4.0])
    curves = {"bound": np.array([1.0, 0.1, 0.01]), "error": np.array([0.5, 0.0, np.nan])}
    lines: Any = pictures.bound_against_error(scale, curves, "").axes[0].get_lines()
    assert [len(line.get_xdata()) for line in lines] == [3, 1]


@pytest.mark.parametrize("found", [[True, True], [False, False], [True, False]])
def test_training_counts_the_seeds_that_found_it(found):
    steps, curves = np.array([1, 2, 3]), np.ones((2, 3))
    canvas = pictures.training(steps, curves, curves, np.array(found))
    legend = canvas.axes[0].get_legend()
    assert legend is not None
    assert f"({sum(found)} of 2)" in legend.get_texts()[0].get_text()


def test_a_stream_of_nothing_is_drawn_without_a_warning():
    """Zero over zero at every depth: nothing is on the curve, the axes and the limit are there."""
    canvas = pictures.depth_profile(np.full(3, np.nan))
    canvas.canvas.draw()
    assert canvas.axes[0].get_yscale() == "log"
    assert canvas.axes[0].get_ylim()[1] > 1000
    canvas = pictures.depth_profile(np.zeros(3))
    canvas.canvas.draw()
