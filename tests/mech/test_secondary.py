import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mech.errors import BadInput
from mech.probes.rank import ranks, spearman
from mech.probes.secondary import (
    KINDS,
    Span,
    classify,
    likeness,
    phases,
    secondary,
    sink_like,
    span,
    written_by_mlp,
)

LAYERS, SEQ = 24, 60


def planted(*, noise=0.05):
    """A primary sink of layers 3 to 20; tokens 10 and 30 join it for a while, 40 for one layer."""
    rng = np.random.default_rng(0)
    cosine = rng.uniform(-noise, noise, (LAYERS, SEQ))
    cosine[:, 0] = 1
    cosine[8:14, 10] = 0.97
    cosine[[9, 10, 12, 13], 30] = -0.95  # with a gap, and against the sink
    cosine[15, 40] = 0.99  # one layer of 18: noise
    cosine[4:20, 50] = 0.96  # 16 of 18: as the primary one
    norm = np.ones(LAYERS)
    norm[3:21] = np.linspace(500, 400, 18)
    return cosine, norm


def later():
    return (np.arange(SEQ) > 0) & (np.arange(SEQ) < SEQ - 8)


def test_the_span_of_a_planted_sink():
    _, norm = planted()
    assert span(norm) == Span(3, 21)
    assert span(norm * 1e-3) == Span(3, 21)


def test_block_0_can_be_the_onset_where_the_norm_before_it_is_known():
    """Else its rise is hidden, and a later, small one is taken for it."""
    norm = np.array([500.0, 500, 501, 500, 1, 1])
    assert span(norm) == Span(2, 4)
    assert span(norm, 1.0) == Span(0, 4)
    assert span(norm, 500.0) == Span(2, 4)


def test_the_planted_tokens_are_found_and_no_others():
    cosine, norm = planted()
    found = secondary(cosine, span(norm), later())
    assert found.token.tolist() == [10, 30, 40, 50]
    assert found.creation.tolist() == [8, 9, 15, 4]
    assert found.lifetime.tolist() == [6, 4, 1, 16]
    assert found.contiguous.tolist() == [True, False, True, True]
    np.testing.assert_allclose(found.depth, np.array([5, 6, 12, 1]) / 18)
    kinds = [KINDS[k] for k in found.kind]
    assert kinds == ["secondary", "secondary", "noise", "primary-like"]


def test_without_support_nothing_is_found():
    cosine, norm = planted()
    assert len(secondary(cosine, span(norm), np.zeros(SEQ, bool)).token) == 0
    assert secondary(cosine, span(norm), later(), threshold=0.98).token.tolist() == [40]


def test_what_is_alike_outside_the_span_is_no_sink():
    cosine, _ = planted()
    assert not sink_like(cosine, Span(21, 24))[:, 1:].any()
    assert secondary(cosine, Span(0, 8), later()).token.tolist() == [50]


@given(st.integers(3, 30), st.data())
def test_a_norm_that_rises_once_and_falls_once_is_bracketed(layers, data):
    onset = data.draw(st.integers(1, layers - 1))
    end = data.draw(st.integers(onset + 1, layers))
    norm = np.ones(layers)
    norm[onset:end] = 100.0
    assert span(norm) == Span(onset, end)
    assert phases(norm, 3.0) == [Span(onset, end)]


def test_no_rise_no_span():
    for norm in (np.zeros(5), np.arange(5.0)[::-1].copy()):
        where = span(norm)
        assert where.layers == 0
        everywhere = np.ones((5, SEQ))
        found = secondary(everywhere, where, later())
        assert len(found.token) == 0
        alike = likeness(everywhere, where, later(), np.zeros(SEQ, int), found.token)
        assert np.isnan(alike).all()
    with pytest.raises(BadInput, match="2 layers"):
        span(np.ones(2))


def test_phases_by_hand():
    ratio = np.array([1, 4, 5, 2, 2, 9, 1, 3, 3.5])
    assert phases(ratio) == [Span(1, 3), Span(5, 6), Span(8, 9)]
    assert phases(np.ones(4)) == []
    assert phases(np.full(4, 9.0)) == [Span(0, 4)]


@pytest.mark.parametrize(
    ("layers", "lifetimes", "release"),
    [
        (16, [1, 5, 12], [2, 2, 2]),  # every flagged token is "primary"
        (22, [4, 5, 6, 7], [0, 1, 1, 2]),
        (40, [4, 5, 24, 25], [0, 1, 1, 2]),
    ],
)
def test_the_absolute_rule_of_the_release(layers, lifetimes, release):
    where = Span(2, layers - 2)
    found = classify(np.array(lifetimes), where, layers, "release")
    assert found.tolist() == release


@given(st.integers(1, 4), st.integers(1, 30))
def test_the_relative_rule_knows_no_depth(factor, lifetime):
    """A model `factor` times as deep, with everything as much longer, has the same classes."""
    small = classify(np.array([lifetime]), Span(3, 33), 36)
    deep = classify(np.array([lifetime * factor]), Span(3, 3 + 30 * factor), 36 * factor)
    assert small == deep


def test_the_controls_of_a_planted_sink():
    cosine, norm = planted(noise=0.0)
    ids = np.arange(SEQ) + 100
    ids[[10, 20, 21]] = 7  # 20 and 21 are the namesakes of 10
    cosine[5, 20] = 0.4
    found = secondary(cosine, span(norm), later())
    alike = likeness(cosine, span(norm), later(), ids, found.token)
    np.testing.assert_allclose(alike, [(0.97 + 0.95 + 0.99 + 0.96) / 4, 0.2, 0.0])


def test_the_share_that_the_mlp_wrote():
    cosine, norm = planted()
    attn, mlp = np.zeros((2, LAYERS, SEQ))
    attn[8, 10], mlp[8, 10] = 1.0, 9.0
    attn[9, 30], mlp[9, 30] = 5.0, -5.0
    attn[15, 40], mlp[15, 40] = -1.0, 2.0
    found = secondary(cosine, span(norm), later())
    share = written_by_mlp(attn, mlp, found)
    np.testing.assert_array_equal(share, [0.9, np.nan, 2.0, np.nan])


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=30))
def test_spearman_is_the_correlation_of_ranks(pairs):
    x, y = np.array(pairs, float).T
    below, equal = zip(*((v < v[:, None], v == v[:, None]) for v in (x, y)), strict=True)
    rank = [b.sum(axis=1) + (e.sum(axis=1) - 1) / 2 for b, e in zip(below, equal, strict=True)]
    np.testing.assert_array_equal(ranks(x), rank[0])
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(spearman(x, y))
        return
    np.testing.assert_allclose(spearman(x, y), np.corrcoef(*rank)[0, 1], atol=1e-12)
    assert spearman(x, np.exp(x)) == pytest.approx(1)


def test_two_units_have_no_rank_correlation():
    assert np.isnan(spearman(np.array([1.0, 2.0]), np.array([1.0, 2.0])))
