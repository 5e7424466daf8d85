"""Family F against the literal model in 60 digits and more, the theorem and the literal pass."""

import mpmath
import numpy as np
import pytest

from toy import theorem
from toy.errors import NoSegment
from toy.logs import ROUNDING
from toy.statements import family, literal
from toy.statements.family import Theta


def exactly(x, seps, s, w, M, after):
    """Both layers as they are defined: f - m, the size of its terms, the sink, and tau_T's size."""
    T = len(x)
    with mpmath.workdps(80 + int(abs(s) + s * s * (s < 12))):
        x, s, w = [mpmath.mpf(float(v)) for v in x], mpmath.mpf(float(s)), mpmath.mpf(float(w))
        M = [[mpmath.mpf(float(v)) for v in row] for row in M]
        e = [(mpmath.mpf(0), -s) if i + 1 in seps else (x[i], mpmath.mpf(-1)) for i in range(T)]
        h, sink = [], []
        for i in range(T):
            raised = [mpmath.exp(e[i][0] * k[0] + e[i][1] * k[1]) for k in e[: i + 1]]
            row = [v / sum(raised) for v in raised]
            sink.append(sum(row[k - 1] for k in seps if k <= i + 1))
            h.append((e[i][0], e[i][1] - w * sum(v * k[1] for v, k in zip(row, e, strict=False))))
        left = [h[-1][0] * M[0][c] + h[-1][1] * M[1][c] for c in range(2)]
        logits = [left[0] * k[0] + left[1] * k[1] for k in h]
        raised = [mpmath.exp(v - max(logits)) for v in logits]
        p = [v / sum(raised) for v in raised]
        chosen = [i for i in range(after, T) if i + 1 not in seps]
        mean = sum(x[i] for i in chosen) / len(chosen)
        even = sum(p[i] for i in chosen) / len(chosen)
        terms = [(p[i] - (even if i in chosen else 0)) * (h[i][0] - mean) for i in range(T)]
        return sum(terms), sum(map(abs, terms)), sink, max(map(abs, logits))


def draw(rng):
    T = int(rng.integers(3, 11))
    count = int(rng.integers(1, min(3, T - 1) + 1))
    seps = tuple(sorted((1 + rng.choice(T - 1, count, replace=False)).tolist()))
    X = rng.uniform(0.1, 2.5)
    x = [rng.uniform(-X, X, T), rng.choice([-X, 0, X], T)][rng.integers(2)]
    theta = Theta(rng.uniform(-1, 30, 1), rng.normal(size=1) * 2, rng.normal(size=(1, 2, 2)))
    after = seps[rng.integers(count)]
    return x, seps, theta, after


@pytest.mark.parametrize("seed", range(60))
def test_residual_and_sink_against_many_digits(seed):
    x, seps, theta, after = draw(np.random.default_rng(seed))
    s, w, M = theta
    error, size, sink, reach = exactly(x, seps, s[0], w[0], M[0], after)
    found = family.residual(theta, x, seps, after=after)[0]
    # A logit is off by its own rounding, and tau_T may cancel: both are relative to `reach`.
    room = ROUNDING * (1 + float(reach)) * float(size)
    assert abs(float(found) - float(error)) <= room + 1e-300
    seen = family.read(theta, x, seps)
    np.testing.assert_allclose(seen.sink[0], [float(v) for v in sink], rtol=ROUNDING, atol=1e-300)


def test_it_contains_the_theorem():
    rng = np.random.default_rng(0)
    s, d, b = rng.uniform(1.5, 40, 50), np.exp(rng.normal(size=50)), rng.normal(size=50)
    M = np.zeros((50, 2, 2))
    M[:, 0, 1], M[:, 1, 1] = b, d
    x = rng.uniform(-1.5, 1.5, (7, 9))
    found = family.residual(Theta(s, np.ones(50), M), x, (4,))
    for k in range(50):
        proved = theorem.residual(x, 4, s_tag=s[k], b=b[k], d=d[k])
        np.testing.assert_allclose(found[:, k], proved, rtol=1e-7, atol=1e-300)


def test_it_is_the_literal_transformer():
    rng = np.random.default_rng(1)
    n, T, t = 40, 9, 3
    theta = Theta(rng.uniform(-1, 6, n), rng.normal(size=n), rng.normal(size=(n, 2, 2)))
    V1 = np.zeros((n, 2, 2))
    V1[:, 1, 1] = -theta.w
    x = rng.uniform(-1.5, 1.5, (n, T))
    model = literal.Model(np.eye(2), V1, theta.M, np.array([[1.0], [0.0]]))
    passed = literal.run(model, literal.embed(x, t, theta.s_tag))
    for k in range(n):
        one = Theta(*(v[k : k + 1] for v in theta))
        error = family.residual(one, x[k], (t,))[0] + x[k, t:].mean()
        assert abs(error - passed.output[k, -1, 0]) <= passed.rounding_output[k] + ROUNDING
        tag = family.read(one, x[k], (t,)).tag_T[0]
        assert abs(tag - passed.stream[k, -1, 1]) <= passed.rounding_stream[k] + 1e-12


def test_it_keeps_its_digits_where_floats_saturate():
    x = np.array([1.0, -0.5, 0.3, 0.0, 0.7, -1.3, 0.2])
    for s, w, d in [(60.0, 1.0, 0.02), (300.0, 0.01, 30.0), (400.0, 0.5, 1e-3)]:
        M = np.array([[[0.0, 0.1], [0.0, d]]])
        theta = Theta(np.array([s]), np.array([w]), M)
        error, _, _, _ = exactly(x, (4,), s, w, M[0], 4)
        assert abs(float(family.residual(theta, x, (4,))[0]) / float(error) - 1) < 1e-9


@pytest.mark.parametrize("seps", [(), (3, 2), (2, 2), (0,), (9,), (4, 9)])
def test_separators_that_leave_nothing_are_refused(seps):
    theta = Theta(np.ones(1) * 3, np.ones(1), np.ones((1, 2, 2)))
    with pytest.raises(NoSegment):
        family.read(theta, np.zeros(9), seps)
