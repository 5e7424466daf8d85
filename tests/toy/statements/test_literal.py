"""The literal numpy pass against flax, and its derived rounding against more digits."""

import numpy as np
import pytest

from toy import transformer
from toy.statements import literal
from toy.transformer import Weights


def weights(rng):
    W_V1, W_Q2, W_K2 = rng.normal(size=(3, 2, 2))
    s_tag = np.asarray(rng.uniform(0.5, 8))
    return Weights(np.zeros(()), s_tag, W_V1, W_Q2, W_K2, rng.normal(size=(2, 1)))


def model_of(w):
    return literal.Model(
        np.eye(2), np.asarray(w.W_V1), np.asarray(w.W_Q2) @ np.asarray(w.W_K2).T, np.asarray(w.W_V2)
    )


def test_it_is_the_flax_transformer():
    rng = np.random.default_rng(0)
    t, x = 4, rng.normal(size=(6, 9))
    for _ in range(8):
        w = weights(rng)
        f, trace = transformer.forward(w, x, t)
        found = literal.run(model_of(w), literal.embed(x, t, float(w.s_tag)))
        room = 2 * found.rounding_output
        assert (np.abs(found.output[:, -1, 0] - f) <= room).all()
        assert (np.abs(found.stream - trace.resid[1]).max(axis=(1, 2)) <= room + 1e-13).all()
        np.testing.assert_allclose(found.pattern_1, trace.pattern[0, :, 0], rtol=1e-12, atol=0)
        np.testing.assert_allclose(found.pattern_2, trace.pattern[1, :, 0], rtol=1e-9, atol=1e-300)


def in_long(model, e):
    """The same two layers in 80-bit floats."""
    QK1, V1, QK2, V2 = (np.asarray(v, dtype=np.longdouble) for v in model)
    h = np.asarray(e, dtype=np.longdouble)

    def attend(h, QK):
        scores = np.where(np.tri(h.shape[1], dtype=bool), h @ QK @ np.swapaxes(h, 1, 2), -np.inf)
        raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return raised / raised.sum(axis=-1, keepdims=True)

    h = h + attend(h, QK1) @ (h @ V1)
    return attend(h, QK2) @ (h @ V2), h


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("d_model", [2, 7])
def test_rounding_covers_float64_and_is_not_absurd(d_model, scale):
    if np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("long double is double here")
    rng = np.random.default_rng(d_model)
    square = (40, d_model, d_model)
    QK1, V1, QK2 = scale * rng.normal(size=(3, *square))
    model = literal.Model(QK1, V1, QK2, rng.normal(size=(40, d_model, 1)))
    e = rng.normal(size=(40, 11, d_model))
    found = literal.run(model, e)
    exact, stream = in_long(model, e)
    off = np.abs(found.output - exact).max(axis=(1, 2)).astype(float)
    assert (off <= found.rounding_output).all()
    moved = np.abs(found.stream - stream).max(axis=(1, 2)).astype(float)
    assert (moved <= found.rounding_stream).all()
    # Worst-case constants and absolute products: thousands of typical roundings, not billions.
    assert np.median(found.rounding_stream / np.maximum(moved, 1e-17)) < 1e4


def test_rounding_covers_scores_that_are_large_and_close():
    """Scores near 2000 that differ by a few units: what is lost there is all that matters."""
    rng = np.random.default_rng(5)
    model = literal.Model(np.eye(2), np.eye(2), np.zeros((2, 2)), np.ones((2, 1)))
    e = 30 + 0.05 * rng.normal(size=(60, 11, 2))
    found = literal.run(model, e)
    long = np.asarray(e, dtype=np.longdouble)
    scores = np.where(np.tri(11, dtype=bool), long @ np.swapaxes(long, 1, 2), -np.inf)
    exact = np.exp(scores - scores.max(axis=-1, keepdims=True))
    exact = exact / exact.sum(axis=-1, keepdims=True)
    seen = exact > 0
    off = np.abs(found.pattern_1 - exact)[seen] / exact[seen]
    assert off.max() > 20 * np.finfo(np.float64).eps * 11
    assert off.max() <= found.rounding_pattern_1.min()


def test_a_later_token_is_not_seen_unless_the_mask_is_off():
    rng = np.random.default_rng(3)
    model, e = literal.theorem_model(4.0, 0.3, 0.7), rng.normal(size=(2, 7, 2))
    other = e.copy()
    other[:, 5:] += 1.0
    one, two = (literal.run(model, v).output[:, :5] for v in (e, other))
    np.testing.assert_array_equal(one, two)
    one, two = (literal.run(model, v, causal=False).output[:, :5] for v in (e, other))
    assert (one != two).all()
