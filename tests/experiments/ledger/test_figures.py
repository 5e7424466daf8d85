"""Numbers with intervals are found in text as they are printed, and nothing else is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.intervals import Interval
from experiments.ledger.figures import figures, says


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (".62 [.45, .79]", ".62 [.45, .79]"),
        ("**+.177** [+.129, +.220]", "+.177 [+.129, +.220]"),
        ("costs **-.57 [-.64, -.49]**", "-.57 [-.64, -.49]"),
        ("**2.32x** [2.30, 2.34]", "2.32 [2.30, 2.34]"),
        ("| 47 | [0.61, 0.83] |", "47 [0.61, 0.83]"),
        ("19.9% [17.9, 22.0] less", "19.9 [17.9, 22.0]"),
        ("+.05 [.01,\n  .10]", "+.05 [.01, .10]"),
        ("1,050 [1,000, 1,200]", "1,050 [1,000, 1,200]"),
        ("1.05e+03 [998, 1.2e+03]", "1.05e+03 [998, 1.2e+03]"),
        ("−0.004 [−0.01, 0.02]", "−0.004 [−0.01, 0.02]"),
        ("W_V2 = [1, 0]", None),
        ("T in [0.2, 3]", None),
        ("[[0, b], [0, d]]", None),
        ("x2 [0, 1]", None),
        ("3 [2, 1]", None),
    ],
)
def test_what_is_a_figure(text, found):
    assert [str(f) for f in figures(text)] == ([found] if found else [])


@given(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), st.integers(1, 4))
def test_what_is_printed_is_held(three, digits):
    low, mean, high = sorted(round(x, 6) for x in three)
    held = np.array([[mean, low, high]])
    printed = f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    (figure,) = figures(printed)
    assert says(figure, held)
    assert says(figure, -held[:, [0, 2, 1]])  # told from the other side
    (figure,) = figures(str(Interval(mean, low, high, 3)))
    assert says(figure, held)


@given(st.integers(-999, 999), st.integers(0, 99), st.integers(0, 99), st.sampled_from([0, 1, 2]))
def test_one_unit_of_the_last_digit_is_another_number(mean, below, above, which):
    three = np.array([mean, mean - below, mean + above]) / 100
    other = three.copy()
    other[which] += 0.01 if which != 1 else -0.01
    (figure,) = figures(f"{other[0]:.2f} [{other[1]:.2f}, {other[2]:.2f}]")
    mirrored = np.allclose(other, -three[[0, 2, 1]])
    assert says(figure, three[None]) == mirrored
    assert says(figure, np.stack([three, other]))


def test_a_share_may_be_printed_in_percent():
    held = np.array([[0.199, 0.179, 0.22]])
    (percent,) = figures("19.9% [17.9, 22.0]")
    (plain,) = figures("19.9 [17.9, 22.0]")
    assert says(percent, held)
    assert not says(plain, held)


def test_lines_are_counted():
    assert [f.line for f in figures("a\n1 [0, 2]\n\nb 3 [1,\n4] and 5 [4, 6]")] == [2, 4, 5]
