"""The literal two-layer model in as many digits as one likes: matrices, no closed form."""

from typing import Any, NamedTuple

import mpmath

mpf = mpmath.mpf


class Exact(NamedTuple):
    """What the literal model gives, in mpmath numbers."""

    error: Any  # f - m
    size: Any  # the sum of the sizes of the terms that f - m is made of
    condition: float  # by how much the query's parts exceed the query
    pattern: list[list[Any]]  # layer 1, each row up to its own token
    stream: list[tuple[Any, Any]]
    weights: list[Any]  # A2[T, .]


def digits_for(s, X):
    """1 - a_i is about e^{-s} and has to keep 60 digits beside 1."""
    return 60 + int((s + X * X) / 2)


def literal(x, t, s, b, d, digits=None):
    """Both layers as the paper writes them."""
    T = len(x)
    x = [float(v) for v in x]
    with mpmath.workdps(digits or digits_for(s, max(map(abs, x)))):
        x, s, b, d = [mpf(v) for v in x], *map(mpf, (s, b, d))
        e = [(v, mpf(-1)) for v in x]
        e[t - 1] = (mpf(0), -s)
        pattern, stream = [], []
        for i in range(T):
            scores = [mpmath.exp(e[i][0] * e[k][0] + e[i][1] * e[k][1]) for k in range(i + 1)]
            row = [v / sum(scores) for v in scores]
            pattern.append(row)
            stream.append((e[i][0], e[i][1] + sum(w * -k[1] for w, k in zip(row, e, strict=False))))
        query = b * stream[-1][0] + d * stream[-1][1]
        logits = [query * tag for _, tag in stream]
        weights = [mpmath.exp(v - max(logits)) for v in logits]
        weights = [w / sum(weights) for w in weights]
        mean = sum(x[t:]) / (T - t)
        terms = [w * (h[0] - mean) for w, h in zip(weights, stream, strict=True)]
        even = sum(weights[t:]) / (T - t)
        uneven = [(w - even) * (v - mean) for w, v in zip(weights[t:], x[t:], strict=True)]
        size = sum(map(abs, terms[:t])) + sum(map(abs, uneven))
        reach = abs(b * x[-1]) + abs(d * stream[-1][1])
        condition = float(reach / abs(query)) if query else float("inf")
        return Exact(sum(terms), size, condition, pattern, stream, weights)
