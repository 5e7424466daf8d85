"""The laws every method obeys, and each method against a plain restatement in float64."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bridge.budget import cost
from bridge.methods import METHODS, method
from bridge.methods.magnitude import Magnitude
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda
from bridge.operators import LowRank, Sparse
from bridge.patterns import NOfM, RowWise
from bridge.planned import planned
from bridge.splitting import FullSVD, WarmSubspace
from bridge.statistics import Moment
from mech.errors import BadInput

# These keep every parameter, in fewer bits (test_gptq.py and test_reconstruct.py say how many).
QUANTISED = {
    "rounding", "gptq", "zeroquant-v2", "lqer", "qera-approximate", "qera", "loftq",
}  # fmt: skip
SHAPES = [(1, 8), (7, 13), (24, 9), (33, 64)]


@pytest.fixture(params=METHODS)
def named(request):
    return METHODS[request.param]()


@pytest.fixture(params=[name for name in METHODS if name not in QUANTISED])
def pruning(request):
    return METHODS[request.param]()


@pytest.fixture(params=SHAPES, ids=str)
def layer(request, generator):
    d_out, d_in = request.param
    weight = torch.randn(d_out, d_in, generator=generator)
    x = torch.randn(200, d_in, generator=generator) * torch.logspace(-1, 1, d_in)
    return weight, x


def compressed(named, weight, x):
    statistic = named.statistic
    return named(weight, statistic.update(statistic.init(weight.shape[1]), x))


def test_the_weight_is_left_alone_and_the_result_is_the_same_again(named, layer):
    weight, x = layer
    before = weight.clone()
    x[:, 0] = 0  # a dead channel: what is put in its place must not be put into the statistic
    seen = named.statistic.update(named.statistic.init(weight.shape[1]), x)
    state = [part.clone() if isinstance(part, torch.Tensor) else part for part in seen]
    first, second = named(weight, seen), named(weight, seen)
    assert torch.equal(weight, before)
    for now, was in zip(seen, state, strict=True):
        assert torch.equal(now, was) if isinstance(now, torch.Tensor) else now == was
    assert torch.equal(first.dense(), second.dense())
    assert first.shape == weight.shape


def test_it_keeps_at_most_half_and_nearly_half(pruning, layer):
    weight, x = layer
    operator = compressed(pruning, weight, x)
    d_out, d_in = weight.shape
    # Whoever rounds, rounds away less than one entry a row and less than one rank.
    assert abs(operator.parameters_kept() - weight.numel() / 2) <= d_out + (d_out + d_in)
    assert operator.bits() < weight.numel() * 32


def test_it_beats_the_zero_matrix_on_the_calibration_inputs(named, layer):
    weight, x = layer
    operator = compressed(named, weight, x)
    if operator.parameters_kept() == 0:
        pytest.skip("half of so small a matrix has no room for one pair of factors")
    assert (x @ weight.mT - operator(x)).norm() < (x @ weight.mT).norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_stay_in_their_format(named, layer, dtype):
    weight, x = layer
    operator = compressed(named, weight.to(dtype), x)
    assert operator.dense().dtype == dtype
    assert operator(x.to(dtype)).isfinite().all()


def test_dead_channels_give_no_nan(named, layer):
    weight, x = layer
    x = x.clone()
    x[:, ::3] = 0
    assert compressed(named, weight, x).dense().isfinite().all()
    assert compressed(named, weight, torch.zeros_like(x)).dense().isfinite().all()
    assert compressed(named, torch.zeros_like(weight), x).dense().count_nonzero() == 0


def weights(d_out: int, d_in: int):
    # Multiples of 1/4: ties everywhere.
    return st.lists(st.integers(-9, 9), min_size=d_out * d_in, max_size=d_out * d_in).map(
        lambda entries: torch.tensor(entries).reshape(d_out, d_in) / 4.0
    )


def plainly(score: list[float], kept: int) -> set[int]:
    return set(sorted(range(len(score)), key=lambda j: (-score[j], j))[:kept])


@given(weights(3, 7))
def test_magnitude_restated(weight):
    flat = weight.flatten().tolist()
    kept = plainly([abs(w) for w in flat], 21 - 10)
    expected = [w if i in kept else 0.0 for i, w in enumerate(flat)]
    assert Magnitude()(weight, Magnitude.statistic.init(7)).dense().flatten().tolist() == expected


@given(weights(3, 7), st.lists(st.integers(0, 4), min_size=7, max_size=7), st.integers(1, 9))
def test_wanda_restated(weight, roots, tenths):
    """E[x²] = 4^n: its root is exact, and so are the products."""
    moment = Moment(torch.tensor([4.0**n for n in roots], dtype=torch.float64), 1)
    result = Wanda(RowWise(tenths / 10))(weight, moment).dense().tolist()
    kept = 7 - int(7 * (1 - Fraction(tenths, 10)))
    for row, got in zip(weight.tolist(), result, strict=True):
        chosen = plainly([abs(w) * 2.0**n for w, n in zip(row, roots, strict=True)], kept)
        assert got == [w if j in chosen else 0.0 for j, w in enumerate(row)]


def test_a_pattern_is_a_field():
    weight = torch.arange(1.0, 9.0).reshape(1, 8)
    kept = Wanda(NOfM(1, 4))(weight, Moment(torch.ones(8, dtype=torch.float64), 1)).dense()
    assert kept.tolist() == [[0, 0, 0, 4, 0, 0, 0, 8]]


def oats_restated(weight, moment, rank, kept, iterations, of=None):
    """Algorithm 1 in numpy and float64: SVD first, then the threshold; unscale at the end."""
    of = of or weight.shape[1]
    root = np.sqrt(moment)
    target = weight * root
    low = sparse = np.zeros_like(target)
    for _ in range(iterations):
        u, s, vt = np.linalg.svd(target - sparse, full_matrices=False)
        low = (u[:, :rank] * s[:rank]) @ vt[:rank]
        residual = target - low
        sparse = np.zeros_like(target)
        for i, row in enumerate(residual):
            for begin in range(0, len(row), of):
                for j in plainly([abs(r) for r in row[begin : begin + of]], kept):
                    sparse[i, begin + j] = row[begin + j]
    return low / root, sparse / root


@pytest.mark.parametrize("shape", [(9, 14), (24, 16), (16, 24)])
def test_oats_restated(shape, generator):
    d_out, d_in = shape
    weight = torch.randn(shape, generator=generator)
    moment = torch.rand(d_in, generator=generator, dtype=torch.float64) + 0.1
    density = Fraction(3, 5)
    rank = int(Fraction(3, 10) * density * d_out * d_in / (d_out + d_in))
    kept = int(Fraction(7, 10) * density * d_in)
    oats = OATS(compression=0.4, rank_ratio=0.3, iterations=5, truncation=FullSVD())
    operator = oats(weight, Moment(moment * 10, 10))
    low, sparse = oats_restated(weight.double().numpy(), moment.numpy(), rank, kept, 5)
    by_kind: dict[type, Any] = {type(term): term for term in operator.modules()}
    # float32 against float64 over five SVDs of well separated random matrices.
    np.testing.assert_allclose(by_kind[LowRank].dense(), low, atol=2e-4)
    np.testing.assert_allclose(by_kind[Sparse].dense(), sparse, atol=2e-4)
    assert by_kind[LowRank].rank == rank
    assert by_kind[Sparse].dense().count_nonzero(1).tolist() == [kept] * d_out


@pytest.mark.parametrize(("keep", "of"), [(1, 4), (3, 4), (2, 6)])
@pytest.mark.parametrize("shape", [(9, 12), (25, 36)])
def test_oats_keeps_n_of_m(shape, keep, of, generator):
    """1:4 keeps one of four; κ of all that is kept is low rank, so ρ is not free."""
    d_out, d_in = shape
    share = Fraction(1, 5)
    density = Fraction(keep, of) / (1 - share)
    rank = int(share * density * d_out * d_in / (d_out + d_in))
    weight = torch.randn(shape, generator=generator)
    moment = torch.rand(d_in, generator=generator, dtype=torch.float64) + 0.1
    oats = OATS.n_of_m(keep, of, rank_ratio=0.2, iterations=5, truncation=FullSVD())
    operator = oats(weight, Moment(moment * 10, 10))
    low, sparse = oats_restated(weight.double().numpy(), moment.numpy(), rank, keep, 5, of)
    np.testing.assert_allclose(operator.dense(), low + sparse, atol=4e-4)
    assert float(1 - density) == pytest.approx(oats.compression)
    assert operator.parameters_kept() <= density * d_out * d_in
    assert cost(operator, weight.numel()) == planned(oats, [shape])


def test_fast_oats_keeps_n_of_m_too(generator):
    weight = torch.randn(48, 64, generator=generator)
    moment = Moment(torch.rand(64, generator=generator, dtype=torch.float64) + 0.1, 1)
    errors = []
    for truncation in (FullSVD(), WarmSubspace()):
        operator = OATS.n_of_m(2, 8, rank_ratio=0.5, truncation=truncation)(weight, moment)
        by_kind: dict[type, Any] = {type(term): term for term in operator.modules()}
        groups = by_kind[Sparse].dense().view(-1, 8).count_nonzero(1)
        assert set(groups.tolist()) == {2}
        errors.append(float(((weight - operator.dense()) * moment.mean.sqrt()).norm()))
    assert errors[1] <= 1.005 * errors[0]


def test_a_compression_that_n_of_m_does_not_make_is_refused():
    with pytest.raises(BadInput, match=r"keep=2, of=8.*rank_ratio of 0.25 make it 0.666667"):
        OATS(compression=0.5, groups=NOfM(2, 8))
    with pytest.raises(BadInput, match="rows of 14 do not split into groups of 4"):
        OATS.n_of_m(2, 4)(torch.ones(3, 14), Moment(torch.ones(14).double(), 1))


def test_a_factor_in_the_moment_cancels(layer):
    weight, x = layer
    moment = OATS.statistic.update(OATS.statistic.init(weight.shape[1]), x)
    scaled = Moment(moment.total * 4, moment.tokens)
    a, b = OATS()(weight, moment).dense(), OATS()(weight, scaled).dense()
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("compression", 0.0), ("compression", 1.0), ("rank_ratio", 1.0), ("iterations", 0)],
)
def test_oats_refuses_what_is_no_setting(field, value):
    with pytest.raises(BadInput, match=field):
        OATS(**{field: value})


def test_methods_are_found_by_name():
    assert {name: method(name) for name in METHODS} == METHODS
    with pytest.raises(BadInput, match="did you mean wanda"):
        method("Wandaa")
    with pytest.raises(BadInput, match="there are magnitude, wanda, oats"):
        method("zzz")
