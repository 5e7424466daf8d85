"""N2': with any s_num a small error forces a sink. Attacks, an oracle of inputs, and its limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toy.errors import NoMagnitude, Refused
from toy.statements import general_family as general
from toy.statements import general_sink as sink
from toy.statements.sink_necessary import least_scale
from toy.transformer import Weights, forward

SHAPES = st.tuples(st.integers(2, 9), st.integers(3, 9)).map(lambda v: (sum(v), v[0]))


@given(
    SHAPES,
    st.floats(0.1, 2),
    st.floats(-2, 22),
    st.one_of(st.just(0.0), st.floats(1e-3, 20)),
    st.floats(-3, 1.5),
    st.floats(-0.3, 0.3),
    st.sampled_from([-1.5, 0.3, 1.0, 4.0]),
    st.sampled_from([1.0, 1.01, 3.0]),
    st.integers(0, 2**32 - 1),
)
def test_no_member_of_the_family_escapes(shape, z, above, lift, log_gain, tilt, w, V, seed):
    """Descent from where hypothesis starts it, at fixed s_tag and s_num."""
    (T, t), rng = shape, np.random.default_rng(seed)
    log_scale = z * z + np.log(T) + above
    gain = log_gain + np.log(max(above, 1.0))
    start = (log_scale, lift, gain, tilt, w, V)
    levers = sink.Levers(*(np.full(7, value) for value in start))
    seen = sink.descend(rng, levers, T, t, z, steps=25)
    active = (6 * (T - t) * seen.error <= z) & (seen.error >= sink.LEAST * z)
    if not active.any():
        return
    found = sink.forced(T, t, z, seen.error[active])
    gain, caught = np.exp(seen.levers.log_gain[active]), seen.sink[active]
    assert (gain * caught >= found.contrast * (1 - 1e-9)).all()
    assert (1 - caught <= found.sink_defect * (1 + 1e-9) + 1e-15).all()
    assert (np.exp(seen.levers.log_scale[active]) >= found.e_scale * (1 - 1e-9)).all()


@pytest.mark.parametrize(
    ("ratios", "reached"),
    [(sink.gain_forced, 0.95), (sink.sink_forced, 0.5), (sink.scale_forced, 0.5)],
)
def test_ratios_hold_and_are_tight(ratios, reached):
    """No violation; (i) raised by 5 %, (ii) halved or (iii) doubled would be violated."""
    found = ratios(np.random.default_rng(5), 1500)
    assert len(found) >= 1500
    assert reached < found.max() <= 1


def test_a_member_of_the_family_in_flax():
    """The levers make the weights that they say, and s_num < 0 is s_num > 0 with x reversed."""
    T, t, z = 9, 4, 1.3
    values = (16.0, 2.0, 2.0, 1e-3, 0.7, 1.0)
    levers = sink.Levers(*(np.array([value]) for value in values))
    theta = sink.weights_of(levers, T, z)
    seen = sink.attempt(levers, T, t, z)
    flip = np.diag([-1.0, 1.0])
    for sign, M in [(1, theta.M[0]), (-1, flip @ theta.M[0] @ flip)]:
        weights = Weights(
            sign * theta.s_num[0],
            theta.s_tag[0],
            theta.W_V1[0],
            M,
            np.eye(2),
            theta.W_V2[0][:, None],
        )
        x = sign * sink.three_inputs(T, t, z)
        f, trace = forward(weights, x, t)
        error = np.abs(f - x[:, t:].mean(axis=1)).max()
        assert abs(error - seen.error[0]) < 1e-12
        np.testing.assert_allclose(trace.pattern[0, 2, 0, T - 2, t - 1], seen.sink[0], rtol=1e-12)
        gain = np.exp(values[2])
        logits = np.log(trace.pattern[1, 0, 0, -1, t:])
        sinks = trace.pattern[0, 0, 0, t:, t - 1]
        np.testing.assert_allclose(np.diff(logits), gain * np.diff(sinks), atol=1e-12)


def test_subtraction_shows_that_the_hypotheses_are_needed():
    """C5 differs from the family in W_V1[1, 1] alone, errs by 2e-9 and has none of (ii), (iii)."""
    T, t, z = 9, 4, 1.0
    x = sink.three_inputs(T, t, z)
    seen = general.read(general.general(general.subtraction(T, t, log_gain=22.0)), x, t)
    error = np.abs(seen.output[:, 0] - x[:, t:].mean(axis=1)).max(keepdims=True)
    found = sink.forced(T, t, z, error)
    assert found.sink_defect[0] < 1e-6 < 0.8 < 1 - seen.sink[2, 0, T - 2]
    assert np.log(found.e_scale[0]) > 14


@pytest.mark.parametrize("s_num", [0.0, 0.5, 30.0])
def test_least_scale_grows_like_log_1_over_eps(s_num):
    """A thousandth of the error needs log 1000 more, and less than log 1000 + 1."""
    least = [sink.least_scale(16, 6, 2.0, eps, s_num) for eps in (1e-6, 1e-9, 1e-12)]
    assert all(np.log(1e3) < step < np.log(1e3) + 1 for step in np.diff(least))
    assert least[0] < least_scale(16, 6, 2.0, 1e-6)  # N2 knows that s_num = 0 and uses X^2


def test_refusals():
    with pytest.raises(Refused, match="n = T - t >= 3"):
        sink.forced(6, 4, 1.0, np.array([1e-3]))
    with pytest.raises(Refused, match="nothing is forced"):
        sink.forced(7, 4, 1.0, np.array([0.06]))
    with pytest.raises(NoMagnitude):
        sink.forced(7, 4, 0.0, np.array([1e-3]))
