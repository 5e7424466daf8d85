"""The search for small errors without a sink: it finds what exists, and reports what it found."""

import numpy as np
import pytest

from toy.errors import NoSegment, Refused
from toy.statements import general_family as general
from toy.statements.general_search import cap_of, search


@pytest.fixture(scope="module")
def found():
    return search(4, (2,), 1.0, cap=cap_of(4, 0.5), starts=16, steps=80, seed=1)


def test_a_way_around_the_sink_is_found(found):
    """At T = 4, t = 2 the theorem's family cannot err by less than N2 allows; a search here can."""
    assert found.error[0] < 0.03
    assert (np.diff(found.error) >= 0).all()


def test_what_is_reported_is_what_the_closed_form_gives(found):
    """On the same corners, the error of the weights returned is at most the error reported."""
    corners = np.array(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3)).reshape(3, -1).T
    x = np.insert(corners, 1, 0.0, axis=1)
    output = general.read(found.theta, x, 2).output
    worst = np.abs(output - x[:, 2:].mean(axis=1)[:, None]).max(axis=0)
    assert (worst <= found.error * (1 + 1e-6) + 1e-9).all()
    assert (worst[:4] > 0.5 * found.error[:4]).all()


def test_the_cap_and_the_held_are_kept():
    held = search(4, (2,), 1.0, cap=1.5, held=("s_num", "W11", "V2"), starts=3, steps=2)
    theta = held.theta
    assert (theta.s_tag <= 1.5).all()
    assert (theta.s_num == 0).all()
    assert (theta.W_V1[:, 0, 0] == 0).all()
    assert (theta.W_V1[:, 0, 1] != 0).all()
    assert (theta.W_V2[:, 1] == 0).all()


@pytest.mark.parametrize(("T", "sink"), [(4, 0.5), (9, 0.9)])
def test_the_cap_is_the_sink_of_a_token_at_0(T, sink):
    s = np.array([cap_of(T, sink)])
    none = np.zeros((1, 2, 2))
    theta = general.General(np.ones(1), s, none, none, np.ones((1, 2)))
    seen = general.read(theta, np.zeros((1, T)), 2)
    np.testing.assert_allclose(seen.sink[0, 0, -1], sink, rtol=1e-12)


def test_refusals():
    with pytest.raises(Refused, match="no coordinates"):
        search(4, (2,), 1.0, cap=1.0, held=("w",))
    with pytest.raises(NoSegment):
        search(4, (2, 4), 1.0, cap=1.0)
