"""Everything that is claimed of the closed form, measured: what `ctr toy verify` reports."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from toy import bounds, theorem, transformer
from toy.errors import Refused
from toy.tightness import LONGEST, BoundCheck, check_bound
from toy.transformer import Weights, forward, theorem_weights


class Agreement(NamedTuple):
    """How far the flax model in float64 is from the closed form, in units of max |x|."""

    worst: float
    median: float
    n: int
    seed: int


class Saturation(NamedTuple):
    """One input as s grows: the true error, its bound, and what floats report."""

    s_tag: Float[np.ndarray, " scale"]
    error: Float[np.ndarray, " scale"]
    bound: Float[np.ndarray, " scale"]
    float32: Float[np.ndarray, " scale"]
    float64: Float[np.ndarray, " scale"]
    T: int
    t: int
    X: float
    b: float
    d: float
    seed: int


class Refusal(NamedTuple):
    """A case outside the theorem and how it was answered; `name` is "" if it was not refused."""

    case: str
    name: str
    message: str


class Verification(NamedTuple):
    """All four."""

    agreement: Agreement
    bound: BoundCheck
    saturation: Saturation
    refusals: list[Refusal]


def agreement(n: int = 1000, seed: int = 0) -> Agreement:
    """max |flax - closed form| / max |x| over n random (T, t, x, s, b, d); also for q <= 0.

    All n run at once: shorter sequences are padded, which a causal model does not see.
    """
    rng = np.random.default_rng(seed)
    last = rng.integers(2, LONGEST + 1, n)
    t = rng.integers(1, last)
    x = rng.uniform(-3, 3, (n, LONGEST))
    s, b, d = rng.uniform(1.001, 20, n), rng.normal(size=n), rng.normal(size=n)
    each = [theorem_weights(*row) for row in zip(s, b, d, strict=True)]
    stacked = Weights(*(np.stack(field) for field in zip(*each, strict=True)))

    def one(weights: Weights, x, t, last):
        return transformer.apply(weights, x[None], t[None], last[None])[0][0]

    with jax.enable_x64(True):
        args = jax.tree.map(jnp.asarray, (stacked, x, t, last))
        found = np.asarray(jax.jit(jax.vmap(one))(*args))
    differences = [
        abs(found[i] - theorem.output(x[i, : last[i]], int(t[i]), s_tag=s[i], b=b[i], d=d[i]))
        / np.abs(np.delete(x[i, : last[i]], t[i] - 1)).max()
        for i in range(n)
    ]
    return Agreement(float(np.max(differences)), float(np.median(differences)), n, seed)


def saturation(
    scales: Sequence[float] = tuple(np.arange(2.0, 60.5, 0.5).tolist()),
    *,
    T: int = 16,
    t: int = 6,
    X: float = 2.0,
    d: float = 1.0,
    seed: int = 0,
) -> Saturation:
    """|f - m| of one random input at each scale: exactly, as bounded, and in two float formats.

    b = 0, so that every scale above 1 has a guarantee.
    """
    x = np.random.default_rng(seed).uniform(-X, X, (1, T))
    mean = x[0, t:].mean()

    def reported(s: float, dtype: type[np.float32] | type[np.float64]) -> float:
        return abs(float(forward(theorem_weights(s, 0.0, d), x, t, dtype=dtype)[0][0]) - mean)

    return Saturation(
        s_tag=np.array(scales),
        error=np.array([abs(theorem.residual(x[0], t, s_tag=s, d=d)) for s in scales]),
        bound=np.array([bounds.error_bound(T, t, X, s_tag=s, d=d) for s in scales]),
        float32=np.array([reported(s, np.float32) for s in scales]),
        float64=np.array([reported(s, np.float64) for s in scales]),
        T=T,
        t=t,
        X=X,
        b=0.0,
        d=d,
        seed=seed,
    )


def refusals() -> list[Refusal]:
    """What the theorem does not cover, and the name under which each case is refused."""
    x, nan = np.linspace(-1.0, 1.0, 5), float("nan")
    causal = theorem_weights(6.0), x[None], np.array([2])
    cases: dict[str, Callable[[], object]] = {
        "t = T": lambda: theorem.output(x, 5, s_tag=6.0),
        "t = 0": lambda: theorem.output(x, 0, s_tag=6.0),
        "no tokens": lambda: theorem.output(x[:0], 1, s_tag=6.0),
        "s_tag = 1": lambda: theorem.output(x, 2, s_tag=1.0),
        "x has a NaN": lambda: theorem.output(np.array([nan, 0.0, 1.0]), 2, s_tag=6.0),
        "X = 0": lambda: bounds.error_bound(5, 2, 0.0, s_tag=6.0),
        "q <= 0": lambda: bounds.error_bound(5, 2, 1.0, s_tag=6.0, b=-30.0),
        "d < 0": lambda: bounds.error_bound(5, 2, 1.0, s_tag=6.0, d=-1.0),
        "no mask": lambda: transformer.apply(*causal, mask=np.ones((5, 5), dtype=bool)),
    }
    return [_answer(case, call) for case, call in cases.items()]


def _answer(case: str, call: Callable[[], object]) -> Refusal:
    try:
        call()
    except Refused as refused:
        return Refusal(case, type(refused).__name__, str(refused))
    return Refusal(case, "", "accepted")


def verify(
    n: int = 1000,
    *,
    random_inputs: int = 10_000,
    adversarial_inputs: int = 5_000,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> Verification:
    """The four checks; `advance` reports the inputs of the second, which takes longest."""
    return Verification(
        agreement(n, seed),
        check_bound(random_inputs, adversarial_inputs, seed, advance),
        saturation(seed=seed),
        refusals(),
    )
