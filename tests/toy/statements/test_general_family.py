"""The general family: its closed form, and averaging without a sink (C5)."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toy.errors import NoMagnitude, NoSegment, NotFinite, Refused
from toy.statements import general_family as general
from toy.statements.general_modulation import modulation
from toy.transformer import Weights, forward

UNIT = float(np.finfo(np.float64).eps)


def draw_weights(rng):
    scale = np.exp(rng.uniform(-1, 0.7))
    return Weights(
        s_num=np.asarray(rng.normal()),
        s_tag=np.asarray(rng.uniform(-3, 6)),
        W_V1=rng.normal(size=(2, 2)) * scale,
        W_Q2=rng.normal(size=(2, 2)),
        W_K2=rng.normal(size=(2, 2)),
        W_V2=rng.normal(size=(2, 1)),
    )


@pytest.mark.parametrize(("T", "t"), [(3, 1), (7, 3), (7, 6), (13, 5)])
def test_closed_form_is_the_flax_model(T, t):
    rng = np.random.default_rng(T * t)
    for _ in range(20):
        weights, x = draw_weights(rng), rng.uniform(-2, 2, (11, T))
        f, trace = forward(weights, x, t)
        seen = general.read(general.general(weights), x, t)
        stream = trace.resid[1]
        # A softmax weight errs by twice its score's rounding, a score of layer 2 by the stream's.
        s, v = float(weights.s_tag), np.abs(weights.W_V1).sum()
        score = (abs(float(weights.s_num)) + abs(s) + 3) ** 2
        off = UNIT * (8 * score + 4 * T + 16) * (1 + v) * (3 + abs(s) + abs(float(weights.s_num)))
        M = np.abs(weights.W_Q2) @ np.abs(weights.W_K2).T
        size = np.abs(stream).max()
        logit = 8 * M.sum() * size * (off + UNIT * size)
        output = np.abs(weights.W_V2).sum() * (size * (2 * logit + (4 * T + 16) * UNIT) + off)
        np.testing.assert_allclose(seen.sink[:, 0], trace.pattern[0, :, 0, :, t - 1], atol=off)
        np.testing.assert_allclose(seen.stream[:, 0], stream, atol=off)
        np.testing.assert_allclose(seen.output[:, 0], f, atol=output)


def exactly(weights, x, t):
    """f - m by the matrices of the model, in 90 digits; [SEP]'s exponentials are below e^300."""
    T = len(x)
    with mpmath.workdps(90):
        number = mpmath.mpf
        e = [(number(float(v)), number(-1)) for v in x]
        e[t - 1] = (number(float(weights.s_num)), -number(float(weights.s_tag)))
        M = weights.W_Q2 @ weights.W_K2.T
        h = []
        for i in range(T):
            raised = [mpmath.exp(e[i][0] * k[0] + e[i][1] * k[1]) for k in e[: i + 1]]
            mixed = [sum(r * k[c] for r, k in zip(raised, e, strict=False)) for c in range(2)]
            mixed = [v / sum(raised) for v in mixed]
            h.append(
                [
                    e[i][c] + sum(mixed[r] * number(float(weights.W_V1[r, c])) for r in range(2))
                    for c in range(2)
                ]
            )
        query = [sum(h[-1][r] * number(float(M[r, c])) for r in range(2)) for c in range(2)]
        raised = [mpmath.exp(query[0] * k[0] + query[1] * k[1]) for k in h]
        values = [sum(k[c] * number(float(weights.W_V2[c, 0])) for c in range(2)) for k in h]
        f = sum(r * v for r, v in zip(raised, values, strict=True)) / sum(raised)
        return f - sum(number(float(v)) for v in x[t:]) / (T - t)


@pytest.mark.parametrize("seed", range(30))
def test_residual_of_subtraction_in_many_digits(seed):
    """f - m = -(w/n) sum (1 - a_i) c_i, up to the rounding of the weights themselves."""
    rng = np.random.default_rng(seed)
    T = int(rng.integers(2, 10))
    t = int(rng.integers(1, T))
    at = {"log_gain": float(rng.uniform(2, 60)), "s_tag": float(rng.uniform(-3, 4))}
    x = rng.uniform(-3, 3, T)
    error = exactly(general.subtraction(T, t, **at), x, t)
    found = float(general.subtraction_residual(x[None], t, **at)[0])
    rounded = general.rounding_of_subtraction(T, t, 3.0, at["s_tag"], at["log_gain"])
    assert abs(mpmath.mpf(found) - error) <= rounded


@pytest.mark.parametrize("X", [0.3, 1.0, 10.0, 1e3])
def test_the_flax_model_averages_without_a_sink(X, measured):
    """T = 16, t = 6, s_tag = 0: error below 1.3e-10 X, and no number gives [SEP] over 0.27."""
    at, rng = {"log_gain": 25.0}, np.random.default_rng(0)
    x = rng.uniform(-X, X, (301, 16))
    x[0], x[1::2] = X, X * np.sign(x[1::2])
    f, trace = forward(general.subtraction(16, 6, **at), x, 6)
    worst = np.abs(f - x[:, 6:].mean(axis=1)).max()
    sink = trace.pattern[0, :, 0, 6:, 5].max()
    assert worst <= general.subtraction_bound(16, 6, X, **at) + (
        general.rounding_of_subtraction(16, 6, X, 0.0, 25.0)
    )
    assert worst < 1.3e-10 * X
    assert sink <= general.most_sink(6, X) * (1 + 1e-12) < 1 / (1 + np.e) + 1e-9
    assert np.abs(trace.resid[1]).max() <= max(1.0, (1 + 1e-9) * X)
    measured(
        f"C5 in flax, X = {X:g}", f"error {worst / X:.2e} X, sink {sink:.3f}", "1.25e-10, 0.27"
    )


CASES = st.integers(2, 17).flatmap(lambda T: st.tuples(st.just(T), st.integers(1, T - 1)))


@given(
    CASES,
    st.floats(0, 40),
    st.one_of(st.floats(-4, 0.9), st.floats(1.1, 5)),
    st.sampled_from([0.1, 1.0, 7.0, 1e4]),
    st.integers(0, 2**32 - 1),
)
def test_the_bound_of_subtraction_holds_everywhere(shape, log_gain, s_tag, X, seed):
    (T, t), rng = shape, np.random.default_rng(seed)
    at = {"log_gain": log_gain, "s_tag": s_tag}
    x = np.concatenate([rng.uniform(-X, X, (5, T)), X * rng.choice([-1, 0, 1], (5, T))])
    x = np.concatenate([x, np.full((1, T), X), -np.full((1, T), X)])
    theta = general.general(general.subtraction(T, t, **at))
    seen = general.read(theta, x, t)
    error = np.abs(seen.output[:, 0] - x[:, t:].mean(axis=1)).max()
    room = general.rounding_of_subtraction(T, t, X, s_tag, log_gain)
    assert error <= general.subtraction_bound(T, t, X, **at) + room
    assert seen.sink[:, 0, t:].max() <= general.most_sink(t, X, s_tag) * (1 + 1e-12)


@pytest.mark.parametrize("ratios", [general.subtraction_errors, general.subtraction_sinks])
def test_ratios_hold_and_are_tight(ratios):
    """No violation, and a constant smaller by 5 % would be violated."""
    found = ratios(np.random.default_rng(3), 2000)
    assert len(found) >= 2000
    assert 0.95 < found.max() <= 1


def test_refusals():
    with pytest.raises(NoSegment):
        general.subtraction(7, 7, log_gain=5.0)
    with pytest.raises(Refused, match="s_tag = 1 makes"):
        general.subtraction(7, 3, log_gain=5.0, s_tag=1.0)
    with pytest.raises(Refused, match="exceeds"):
        general.subtraction(7, 3, log_gain=301.0)
    with pytest.raises(NotFinite):
        general.subtraction(7, 3, log_gain=float("nan"))
    with pytest.raises(NoMagnitude):
        general.subtraction_bound(7, 3, 0.0, log_gain=5.0)


@pytest.mark.parametrize(("T", "t"), [(7, 3), (16, 6), (9, 8)])
def test_modulation_converges_without_a_sink(T, t, measured):
    """C6 in flax, O(kappa log(1/kappa)): a tenth of kappa leaves less than a fifth of the error."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (301, T))
    x[0], x[1::2] = 1, np.sign(x[1::2])
    worst = []
    for kappa in (1e-2, 1e-3, 1e-4):
        f, trace = forward(modulation(T, t, kappa), x, t)
        worst.append(np.abs(f - x[:, t:].mean(axis=1)).max())
        assert trace.pattern[0, :, 0, t:, t - 1].max() <= 1 / (1 + np.exp(1 - kappa**2 / 4))
        assert np.abs(trace.resid[1]).max() < 1.001
    assert worst[1] < worst[0] / 5
    assert worst[2] < worst[1] / 5
    measured(f"C6 in flax, T = {T}, t = {t}", ", ".join(f"{v:.1e}" for v in worst), "kappa log")


@pytest.mark.parametrize("seed", range(5))
def test_modulation_in_many_digits(seed):
    """The float64 error is that of the weights, not of the pass: kappa = 1e-3, T odd."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, 7)
    weights = modulation(7, 3, 1e-3)
    f, _ = forward(weights, x[None], 3)
    error = exactly(weights, x, 3)
    assert abs(float(error)) < 0.02
    assert abs(f[0] - x[3:].mean() - float(error)) < 64 * UNIT * float(np.abs(weights.W_V2).max())


def test_modulation_refuses_what_float64_cannot_hold():
    with pytest.raises(Refused, match="kappa in"):
        modulation(7, 3, 1e-6)
    with pytest.raises(Refused, match="t >= 2"):
        modulation(7, 1, 1e-2)
