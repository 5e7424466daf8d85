"""The flax model is the paper's, and the closed form is the flax model."""

from functools import partial

import jax
import numpy as np
import pytest

from toy import errors, theorem
from toy.transformer import Averager, Weights, apply, forward, theorem_weights


def random_weights(rng):
    return Weights(
        *(np.asarray(rng.normal(size=shape)) for shape in [(), (), (2, 2), (2, 2), (2, 2), (2, 1)])
    )


def by_hand(w, x, t):
    """One sequence, straight from the formulas, row by row."""
    e = np.stack([x, -np.ones_like(x)], axis=1)
    e[t - 1] = w.s_num, -w.s_tag
    H = e.copy()
    for i in range(len(x)):
        p = np.exp(e[: i + 1] @ e[i])
        H[i] += (p / p.sum()) @ e[: i + 1] @ w.W_V1
    p = np.exp((H[-1] @ w.W_Q2) @ (H @ w.W_K2).T)
    return (p / p.sum()) @ H @ w.W_V2, e, H


@pytest.mark.parametrize("seed", range(5))
def test_any_weights_against_the_formulas(seed):
    """Not symmetric in W_Q2 and W_K2: a lost transpose shows."""
    rng = np.random.default_rng(seed)
    w, x, t = random_weights(rng), rng.normal(size=(3, 7)), int(rng.integers(1, 8))
    f, seen = forward(w, x, t)
    for row in range(3):
        value, e, H = by_hand(w, x[row], t)
        np.testing.assert_allclose(f[row], value[0], rtol=1e-12)
        np.testing.assert_allclose(seen.resid[0, row], e, rtol=1e-15)
        np.testing.assert_allclose(seen.resid[1, row], H, rtol=1e-11, atol=1e-13)


def test_the_trace_is_one_forward_pass():
    rng = np.random.default_rng(7)
    w, x = random_weights(rng), rng.normal(size=(4, 9))
    f, seen = forward(w, x, 3)
    assert seen.tokens.tolist() == [[0, 0, 1, 0, 0, 0, 0, 0, 0]] * 4
    assert seen.resid.shape == (3, 4, 9, 2)
    assert seen.pattern.shape == (2, 4, 1, 9, 9)
    np.testing.assert_allclose(seen.pattern.sum(axis=-1), 1.0, rtol=1e-14)
    assert not np.triu(seen.pattern, k=1).any()
    np.testing.assert_allclose(seen.resid[1:] - seen.resid[:-1], seen.z[:, :, 0], atol=1e-14)
    values = [seen.resid[0] @ w.W_V1, np.pad(seen.resid[1] @ w.W_V2, [(0, 0), (0, 0), (0, 1)])]
    for layer, value in enumerate(values):
        np.testing.assert_allclose(
            seen.z[layer, :, 0], seen.pattern[layer, :, 0] @ value, atol=1e-13
        )
    np.testing.assert_array_equal(f, seen.z[1, :, 0, -1, 0])


@pytest.mark.parametrize(("T", "t"), [(2, 1), (9, 1), (9, 4), (9, 8)])
def test_closed_form_at_the_weights_of_the_theorem(T, t):
    x = np.random.default_rng(T + t).uniform(-2, 2, (5, T))
    x[:, t - 1] = 0
    at = {"b": 0.3, "d": 0.8}
    f, seen = forward(theorem_weights(7.0, **at), x, t)
    # Rounding of logits of size s^2 and of their softmax, in units of 2^-52.
    close = partial(np.testing.assert_allclose, rtol=0.0, atol=7.0**2 * T * np.finfo(float).eps * 8)
    close(f, theorem.output(x, t, s_tag=7.0, **at))
    caught = theorem.sink(x, t, 7.0)
    close(seen.pattern[0, :, 0, :, t - 1], caught)
    close(seen.resid[1, ..., 1], theorem.tag(x, t, 7.0))
    row = theorem.readout(x, t, s_tag=7.0, **at)
    close(seen.pattern[1, :, 0, -1], row)


def test_padding_is_hidden():
    rng = np.random.default_rng(1)
    w, x = random_weights(rng), rng.normal(size=(3, 11))
    last = np.array([5, 11, 7])
    f, _ = apply(w, x, np.array([2, 10, 6]), last)
    for row, (t, end) in enumerate(zip([2, 10, 6], last, strict=True)):
        alone, _ = apply(w, x[row : row + 1, :end], np.array([t]))
        np.testing.assert_allclose(f[row], alone[0], rtol=1e-5)


def test_masks():
    """A causal mask given is the causal mask assumed; any other is refused by name."""
    x, t = np.random.default_rng(2).normal(size=(2, 5)), np.array([2, 3])
    w = theorem_weights(6.0)
    causal = np.tri(5, dtype=bool)
    np.testing.assert_array_equal(apply(w, x, t)[0], apply(w, x, t, mask=causal)[0])
    window = causal & ~np.tri(5, k=-2, dtype=bool)
    assert np.abs(apply(w, x, t)[0] - apply(w, x, t, mask=window)[0]).max() > 1e-3
    with pytest.raises(errors.NotCausal, match="query 1 see key 2"):
        apply(w, x, t, mask=np.ones((5, 5), dtype=bool))
    peek = causal.copy()
    peek[3, 4] = True
    with pytest.raises(errors.NotCausal, match="query 4 see key 5"):
        apply(w, x, t, mask=peek)
    blind = causal.copy()
    blind[2] = False
    with pytest.raises(errors.Refused, match="query 3 see nothing"):
        apply(w, x, t, mask=blind)


def test_flax_initialises_the_same_parameters():
    made = Averager().init(jax.random.key(0), np.zeros((1, 4)), np.array([2]))
    shapes = jax.tree.map(np.shape, dict(made["params"]))
    assert shapes == {name: np.shape(v) for name, v in theorem_weights(5.0)._asdict().items()}


def test_the_transpose_matters():
    """W_Q W_K^T with W_Q = I and the theorem's matrix in W_K ends at the maximum, not the mean."""
    x = np.random.default_rng(5).uniform(-1, 1, (1, 10))
    w = theorem_weights(2000.0)._replace(W_Q2=np.eye(2), W_K2=np.array([[0.0, 0.3], [0.0, 1.0]]))
    f, _ = forward(w, x, 5)
    after = x[0, 5:]
    assert abs(f[0] - after.max()) < 1e-3
    assert abs(f[0] - after.mean()) > 0.1


def test_floats_report_less_error_than_there_is():
    """s = 24, d = 1e6: float32 tags agree to the last bit, so its error is rounding only."""
    T, t = 16, 6
    x = np.random.default_rng(0).uniform(-2, 2, (1, T))
    x[0, t:] = np.linspace(-2, 2, T - t)  # rows that look at [SEP] unequally
    x[0, t - 1] = 0
    mean = x[0, t:].mean()
    truth = theorem.residual(x, t, s_tag=24.0, d=1e6)[0]
    single = forward(theorem_weights(24.0, 0.0, 1e6), x, t, dtype=np.float32)[0][0] - mean
    assert abs(truth) > 0.1
    assert abs(single) < 1e-6
