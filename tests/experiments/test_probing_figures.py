"""The prompt's pictures show the numbers they are given, at odd sizes and with odd tokens."""

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from experiments.intervals import Interval
from experiments.probing.figures import coloured, labels, maps, stems, survival, timelines
from experiments.report import RED

ODD = ["$x_1$", "\n", "\t", "  ", "", "你好", "\x00", "a" * 200, "�", "<|im_start|>", "é", "\u200b"]


def saved(canvas, tmp_path) -> str:
    """Drawn without a warning, which a missing character would be; the SVG's text."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas.savefig(tmp_path / "a.png", dpi=20)
        canvas.savefig(tmp_path / "a.svg")
    return (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("\n", "⏎"),
        (" \n\n", "⏎⏎"),
        ("\t", "⇥"),
        ("   ", "␣"),
        ("", "␣"),
        (" the", "the"),
        ("你", "[4F60]"),
        ("\x00", "[0]"),
        ("internationalisation", "intern…isation"),
    ],
)
def test_a_label_is_one_line_that_can_be_drawn(token, shown):
    assert labels.label(token) == shown


def test_a_cut_label_is_as_long_as_asked():
    assert all(len(labels.label("abcdefghijkl", n)) == n for n in range(2, 12))


@pytest.mark.parametrize("seq", [1, 2, 64, 65, 129, 1000])
@pytest.mark.parametrize("every", [1, 2, 7])
def test_a_long_axis_names_every_sink_and_never_crowds(seq, every):
    sinks = np.unique([0, 1, *range(seq // 2, seq, every)])
    sinks = sinks[sinks < seq]
    groups = labels.chosen(seq, sinks)
    assert set(sinks.tolist()) <= {place for group in groups for place in group}
    assert len(groups) <= labels.NAMED
    if seq > labels.NAMED:
        assert np.diff([group[0] for group in groups]).min() > seq // labels.NAMED
    else:
        assert groups == [[place] for place in range(seq)]


def test_neighbouring_sinks_share_a_name(tmp_path):
    tokens = ["<s>", "Question", *["w"] * 98]
    canvas = maps.attention_maps(tokens, [maps.Map("", np.eye(100))], np.array([0, 1]))
    svg = saved(canvas, tmp_path)
    assert svg.count(">&lt;s&gt; Question</text>") == 2


@pytest.mark.parametrize("heads", [1, 2])
def test_maps_show_the_patterns_with_red_sinks(heads, tmp_path):
    pattern = np.tril(np.full((len(ODD), len(ODD)), 0.25))
    shown = [maps.Map(f"head {i}", pattern * (i + 1)) for i in range(heads)]
    canvas = maps.attention_maps(ODD, shown, np.array([0, 5]))
    saved(canvas, tmp_path)
    for axes, (title, wanted) in zip(canvas.axes, shown, strict=False):
        np.testing.assert_array_equal(axes.images[0].get_array(), wanted)
        assert axes.get_title(loc="left") == title
        red = [tick.get_color() == RED for tick in axes.get_xticklabels()]
        assert [i for i, hit in enumerate(red) if hit] == [0, 5]


def test_a_tile_keeps_its_largest_entry():
    pattern = np.zeros((7, 7))
    pattern[6, 2] = 0.9
    tiles = maps.tiled(pattern, most=3)
    assert tiles.shape == (3, 3)
    assert tiles[2, 0] == 0.9
    assert tiles.sum() == 0.9
    assert maps.tiled(pattern, most=7) is pattern


def test_a_tiled_map_has_its_tokens_where_they_are(tmp_path):
    pattern = maps.tiled(np.eye(7), most=3)
    canvas = maps.attention_maps(["w"] * 7, [maps.Map("", pattern)], np.array([6]))
    saved(canvas, tmp_path)
    low, high = canvas.axes[0].images[0].get_extent()[:2]
    assert (low, high) == (-0.5, 8.5)  # three tiles of three tokens


def test_coloured_text_stands_on_its_colours(tmp_path):
    rgb = np.linspace(0, 1, 3 * len(ODD)).reshape(-1, 3)
    panels = [coloured.Coloured("$ one", rgb), coloured.Coloured("two", 1 - rgb)]
    canvas = coloured.coloured_text(ODD, panels, np.array([1, 7]))
    svg = saved(canvas, tmp_path)
    assert ">$x_1$</text>" in svg
    boxes: Any = canvas.axes[0].patches
    assert len(boxes) == 2 * len(ODD)
    for box, colour in zip(boxes, np.vstack([rgb, 1 - rgb]), strict=True):
        np.testing.assert_allclose(to_rgb(box.get_facecolor()), 0.5 + 0.5 * colour)
    framed = [box.get_linewidth() > 1 for box in boxes]
    assert [i for i, hit in enumerate(framed) if hit] == [1, 7, 13, 19]


def test_no_token_leaves_the_line_or_covers_another():
    tokens = [*ODD, *(f" word{i}" for i in range(60))]
    words = list(coloured.laid_out(tokens, columns=40))
    assert [word.token for word in words] == list(range(len(tokens)))
    for word, after in itertools.pairwise(words):
        assert word.column + len(word.text) <= 40
        assert after.row > word.row or after.column == word.column + len(word.text)


def test_a_rotation_keeps_lengths_and_angles_and_spreads_one_coordinate():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5, 37))
    turned = stems.rotated(vectors)
    np.testing.assert_allclose(turned @ turned.T, vectors @ vectors.T, rtol=1e-9)
    one = np.zeros((1, 37))
    one[0, 4] = 1.0
    assert np.abs(stems.rotated(one)).max() <= np.sqrt(2 / 37) * (1 + 1e-12)


def test_stems_are_in_medians_and_name_what_exceeds_six(tmp_path):
    vectors = np.ones((3, 11))
    vectors[:, 2], vectors[:, 7] = -8.0, 5.5
    row = stems.stem("stream", vectors)
    np.testing.assert_array_equal(row.size, np.abs(vectors[0]))
    assert stems.outliers(row.size).tolist() == [2]
    svg = saved(stems.stems([row]), tmp_path)
    assert ">2</text>" in svg
    assert "n = 3 tokens" in svg


def test_zero_vectors_and_one_token_make_a_picture(tmp_path):
    svg = saved(stems.stems([stems.stem("nothing", np.zeros((1, 2)))]), tmp_path)
    assert "n = 1 token)" in svg


def test_names_of_neighbours_do_not_cover_each_other():
    dims, sizes = np.array([50, 52, 54]), np.array([20.0, 19.5, 19.0])
    placed = stems._placed(dims, sizes, 500, 25.0)
    for one in placed:
        others = [p for p in placed if p is not one]
        assert not any(
            o.left < one.right and one.left < o.right and abs(o.y - one.y) < 0.075 * 25
            for o in others
        )


def test_a_level_is_cosine_and_norm():
    resid = np.array([[3.0, 0.0], [0.0, 1.0], [-2.0, 0.0], [0.0, 0.0]])
    cosine, norm = timelines.level(resid)
    np.testing.assert_allclose(cosine, [1, 0, -1, 0])
    np.testing.assert_allclose(norm, np.array([3, 1, 2, 0]) / 1.5)


def levels(depth: int, seq: int) -> timelines.Levels:
    cosine, norm = np.zeros((depth, seq)), np.ones((depth, seq))
    cosine[:, 0] = 1
    return timelines.Levels(cosine, norm, np.zeros((depth - 1, seq)))


def test_rows_are_the_sinks_and_as_many_others_before_the_guard():
    heads = np.zeros((2, 40))
    heads[0, [0, 5, 30]], heads[1, 39] = [0.5, 0.25, 0.1], 1.0
    shown = timelines.rows(heads, 8)
    assert shown.sinks.tolist() == [0, 5, 30]
    assert len(shown.others) == 3
    assert shown.others.max() < 32
    assert not set(shown.others) & {0, 5, 30}
    assert timelines.rows(heads, 8, most=2).sinks.tolist() == [0, 5]


def test_dots_mark_tokens_like_the_first_while_it_is_raised():
    found = levels(6, 3)
    found.norm[2:5, 0] = 9.0
    found.cosine[1:6, 1] = 0.95
    like = timelines.sink_like(found)
    assert np.argwhere(like).tolist() == [[2, 1], [3, 1], [4, 1]]


@pytest.mark.parametrize(("depth", "seq"), [(2, 1), (2, 2), (4, 5), (7, 70)])
@pytest.mark.parametrize("sinks", [False, True])
def test_timelines_of_any_size(depth, seq, sinks, tmp_path):
    found = levels(depth, seq)
    if sinks:
        found.heads[:, 0] = 1
        found.norm[1:, 0] = 1e4
        found.cosine[1:, -1] = 0.99
    shown = timelines.rows(found.heads, 8)
    svg = saved(timelines.timelines(["你"] * seq, found, shown), tmp_path)
    assert "[4F60] (" in svg


def test_survival_draws_mean_and_interval_of_each_depth(tmp_path):
    eta2 = np.array([[0.0, -0.1, 0.1], [0.2, 0.1, 0.4], [0.1, 0.0, 0.3]])
    points = Interval(0.5, 0.25, 0.625, 6), Interval(0.7, 0.6, 0.9, 6)
    canvas = survival.survival(eta2, eta2 * 2, points, 1, 6)
    svg = saved(canvas, tmp_path)
    assert "n = 6" in svg
    for axes, values, point in zip(canvas.axes, (eta2, eta2 * 2), points, strict=True):
        stream, written = axes.get_lines()[:2]
        np.testing.assert_array_equal(np.asarray(stream.get_ydata()), values[:, 0])
        assert list(np.asarray(written.get_ydata())) == [point.mean]
        band, bar = (each.get_paths()[0].vertices for each in axes.collections)
        np.testing.assert_allclose(np.asarray(bar)[:, 1], point[1:3])
        assert np.asarray(band)[:, 1].min() == values[:, 1].min()
        assert np.asarray(band)[:, 1].max() == values[:, 2].max()
