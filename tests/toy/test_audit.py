"""Where floats say "exact": predicted, then measured, in a model that is the flax model."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.toy.oracle import literal
from toy import audit, errors, theorem
from toy.transformer import forward, theorem_weights

T, t, X, STEP = 13, 5, 1.5, 0.5
MILLION = float(audit.rounded(1e6))
KINDS = [
    ("bfloat16", "shifted"),
    *((f, k) for f in ("float32", "float64") for k in ("shifted", "naive")),
]
"""A naive softmax in bfloat16 is compiled to mix two precisions: nothing is derived for it."""


def numbers(n=12):
    """Random ones, and all at X: every row is crowded as much as it can be."""
    x = np.random.default_rng(0).uniform(-X, X, (n, T))
    x[0] = X
    return audit.rounded(x)


@pytest.fixture(scope="module")
def exact():
    return {d: audit.truth(numbers(), t, np.arange(1.5, 48, STEP), d) for d in (1.0, MILLION)}


@pytest.mark.parametrize(("format", "dtype"), [("float64", np.float64), ("float32", np.float32)])
def test_its_model_is_the_flax_model(format: audit.Format, dtype):
    x = numbers(7)
    found, _ = forward(theorem_weights(6.0, 0.0, 0.5), x, t, dtype=dtype)
    seen = audit.audit(audit.truth(x, t, np.array([6.0]), 0.5), format)
    wanted = np.abs(found - x[:, t:].mean(axis=1)).max()
    assert seen.reported[0] == pytest.approx(wanted, abs=8 * seen.floor)
    assert seen.reported[0] > 1e4 * seen.floor


def test_the_truth_and_its_slope_in_60_digits():
    x = numbers(3)
    found = audit.truth(x, t, np.array([7.0, 20.0]), 0.5)
    for row, s in enumerate((7.0, 20.0)):
        for case in range(len(x)):
            step = 2.0**-30  # s + step is exact
            high, middle, low = (
                literal(x[case], t, s + h, 0.0, 0.5).error for h in (step, 0.0, -step)
            )
            assert found.error[row, case] == pytest.approx(float(middle), rel=1e-9)
            slope = float((high - low) / (2 * step))
            assert found.slope[row, case] == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize(("format", "kind"), KINDS)
@pytest.mark.parametrize("d", [1.0, MILLION])
def test_tags_become_identical_where_predicted(exact, d, format, kind):
    """Never later than derived; and not much earlier, with an input at its crowded corner.

    Earlier than r = u/8 is impossible: r_T >= 8 u is eight spacings of 1 + r apart from the
    least crowded row, and the tags' own spacing is at most two of those.
    """
    seen = audit.audit(exact[d], format, kind)
    predicted = audit.saturation_scale(T, X, format, kind)
    assert predicted - np.log(16) - STEP <= seen.identical_from <= predicted + STEP


@pytest.mark.parametrize(("format", "kind"), [*KINDS, ("bfloat16", "naive")])
@pytest.mark.parametrize("d", [1.0, 64.0])
def test_nan_appears_where_predicted(d, format, kind):
    x = numbers()
    predicted = audit.overflow_scale(x, t, d, format, kind)
    scales = audit.rounded(1 + (predicted - 1) * np.array([0.8, 0.9, 1.15, 1.3]))
    with np.errstate(over="ignore"):
        seen = audit.audit(audit.truth(x, t, scales, d), format, kind)
    assert seen.lost_from == scales[2]
    assert np.isfinite(seen.reported[:2]).all()


def test_a_naive_softmax_overflows_in_the_row_of_sep_at_s_squared():
    limits: dict[audit.Format, float] = {"float32": 9.419, "float64": 26.642, "bfloat16": 9.419}
    for format, limit in limits.items():
        found = audit.overflow_scale(numbers(), t, 0.5, format, "naive")
        assert found == pytest.approx(limit, abs=1e-3)
        assert found == pytest.approx(np.sqrt(np.log(float(jnp.finfo(format).max))), rel=1e-9)


@pytest.mark.parametrize("format", audit.FORMATS)
def test_saturated_floats_are_far_from_honest(exact, format: audit.Format):
    """All report an error of rounding, far below the true one."""
    seen = audit.audit(exact[MILLION], format)
    late = seen.s_tag >= seen.identical_from
    assert (seen.reported[late] <= 4 * seen.floor).all()
    assert seen.dishonesty[late].max() > 20


@pytest.mark.parametrize("format", ["float32", "float64"])
def test_a_saturated_float_has_no_slope(exact, format: audit.Format):
    """df/ds is exactly 0 soon after the tags agree, where the true one is not."""
    seen = audit.audit(exact[1.0], format)
    assert seen.identical_from - 1 <= seen.flat_from <= seen.identical_from + 4
    assert (np.abs(seen.slope[seen.s_tag >= seen.flat_from]) > 0).all()


def test_before_it_saturates_a_float_tells_the_truth(exact):
    seen = audit.audit(exact[1.0], "float64")
    early = seen.s_tag < 30
    np.testing.assert_allclose(seen.reported[early], seen.true[early], rtol=1e-3)
    np.testing.assert_allclose(seen.slope_reported[early], seen.slope[early], rtol=1e-2)
    assert seen.blind_from > 35


def test_a_float_that_reports_nothing_is_found_by_the_residual():
    """d = 10^6, s where float32 has no tags left to tell apart: it says 1e-7, the truth is 0.1."""
    s = float(audit.rounded(audit.saturation_scale(T, X, "float32")))
    seen = audit.audit(audit.truth(numbers(), t, np.array([s]), MILLION))
    assert seen.reported[0] < 1e-6
    assert np.abs(theorem.residual(numbers(), t, s_tag=s, d=MILLION)).max() > 0.01


def test_numbers_that_bfloat16_rounds_are_refused():
    for x, s, d in (
        (numbers() + 1e-3, 4.0, 1.0),
        (numbers(), 4.001, 1.0),
        (numbers(), 4.0, 1e6),
    ):
        with pytest.raises(errors.Refused, match="than bfloat16 has"):
            audit.truth(x, t, np.array([s]), d)
