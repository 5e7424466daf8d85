"""Budgets of layers: totals to the parameter, and the right ones get more."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bridge import allocate
from bridge.allocate import Curve
from bridge.allocate.apportion import LEAST
from bridge.compress import compressed
from bridge.equal import shapes_of, spread, total
from bridge.methods.magnitude import Magnitude
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda
from bridge.sites import block_of, linears
from mech.errors import BadInput


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(50, 5000)), min_size=1, max_size=9),
    st.floats(0.03, 1),
)
def test_allowances_sum_to_the_total_and_follow_the_densities(linears, share):
    densities = {str(i): d for i, (d, _) in enumerate(linears)}
    sizes = {str(i): n for i, (_, n) in enumerate(linears)}
    wanted = int(share * sum(sizes.values()))
    least = sum(int(np.ceil(LEAST * n)) for n in sizes.values())
    if wanted < least:
        with pytest.raises(BadInput, match="at least"):
            allocate.apportion(densities, sizes, wanted)
        return
    found = allocate.apportion(densities, sizes, wanted)
    assert sum(found.values()) == wanted
    for a, b in product(sizes, sizes):
        inside = all(LEAST * sizes[x] + 1 < found[x] < sizes[x] - 1 for x in (a, b))
        if inside:
            # One shift for all: differences of densities are kept, to the rounding of a parameter.
            gap = (found[a] / sizes[a] - found[b] / sizes[b]) - (densities[a] - densities[b])
            assert abs(gap) <= 1 / sizes[a] + 1 / sizes[b] + 1e-9
    assert all(0 < count <= sizes[name] for name, count in found.items())


@given(st.lists(st.lists(st.integers(0, 60), min_size=3, max_size=3), min_size=2, max_size=3))
def test_the_greedy_budget_is_the_best_of_all_budgets(errors):
    """Against every budget in whole numbers, on curves that are convex."""
    found = {}
    for number, drops in enumerate(errors):
        falls = sorted(drops, reverse=True)
        error = sum(falls) - np.concatenate([[0], np.cumsum(falls)])
        found[str(number)] = Curve(np.arange(4), error.astype(float))
    for wanted in range(3 * len(found) + 1):
        chosen = allocate.greedy(found, wanted)
        assert sum(chosen.values()) == wanted
        reached = sum(found[name].error[count] for name, count in chosen.items())
        best = min(
            sum(curve.error[k] for curve, k in zip(found.values(), kept, strict=True))
            for kept in product(range(4), repeat=len(found))
            if sum(kept) == wanted
        )
        assert reached == best


def test_a_dent_in_a_curve_is_passed_over():
    """The first half of `a` lowers nothing, all of it lowers most: more than a half of `b`."""
    a = Curve(np.array([0, 10, 20]), np.array([1.0, 1.0, 0.0]))
    b = Curve(np.array([0, 10, 20]), np.array([1.0, 0.6, 0.5]))
    assert allocate.greedy({"a": a, "b": b}, 20) == {"a": 20, "b": 0}
    assert allocate.greedy({"a": a, "b": b}, 30) == {"a": 20, "b": 10}
    with pytest.raises(BadInput, match="of 40"):
        allocate.greedy({"a": a, "b": b}, 41)


def outlying(llama):
    """The last block, whose outputs no other reads, has a few weights that are far larger."""
    with torch.no_grad():
        for linear in linears(llama, "layers.2.*").values():
            linear.weight[::7, ::5] *= 40
    return llama


WAYS = {
    "uniform": lambda model, batches, n: allocate.uniform(
        {name: linear.parameters for name, linear in shapes_of(model).items()}, n
    ),
    "owl": lambda model, batches, n: allocate.owl(model, batches, n, spread=0.15),
    "curves": lambda model, batches, n: allocate.greedy(
        allocate.curves(model, Wanda(), batches, shares=(0.2, 0.5, 0.8)), n
    ),
    "sink-aware": lambda model, batches, n: allocate.sink_aware(model, batches, n, spread=0.2),
}


@pytest.fixture
def long(generator):
    return [torch.randint(3, 97, (2, 64), generator=generator)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("share", [0.4, 0.61])
def test_every_way_spends_the_total_to_the_parameter(way, share, llama, long):
    shapes = shapes_of(llama)
    wanted = int(share * sum(linear.parameters for linear in shapes.values()))
    allowed = WAYS[way](llama, long, wanted)
    assert sum(allowed.values()) == wanted
    assert list(allowed) == list(shapes)
    methods = spread(Magnitude(), shapes, allowed)
    assert total(methods, shapes).kept == wanted
    with compressed(llama, methods, long) as done:
        assert done.cost.kept == wanted


def test_owl_gives_more_to_the_block_with_outliers(llama, long):
    model = outlying(llama)
    shares = allocate.outlier_shares(model, long)
    assert max(shares, key=lambda block: shares[block]) == 2
    shapes = shapes_of(model)
    wanted = int(0.4 * sum(linear.parameters for linear in shapes.values()))
    allowed = allocate.owl(model, long, wanted, spread=0.1)
    density = {name: allowed[name] / shapes[name].parameters for name in shapes}
    for name in shapes:
        assert (density[name] > 0.4) == (block_of(name) == 2)
    gap = density["layers.2.mlp.up_proj"] - min(density.values())
    # A whole parameter more or less at either end.
    assert abs(gap - 0.2) < 2 / min(linear.parameters for linear in shapes.values())
    with pytest.raises(BadInput, match="outlier"):
        allocate.outlier_shares(model, long, outlier=0)


def test_error_curves_fall_and_give_less_to_what_is_sparse_already(llama, long):
    with torch.no_grad():
        easy = linears(llama)["layers.0.mlp.up_proj"]
        easy.weight[:, 4:] *= 1e-3
    found = allocate.curves(llama, Wanda(), long, shares=(0.2, 0.5, 0.8))
    for curve in found.values():
        assert (np.diff(curve.error) <= 1e-12).all()
        assert (curve.error[0], curve.error[-1]) == (1, 0)
    shapes = shapes_of(llama)
    wanted = int(0.5 * sum(linear.parameters for linear in shapes.values()))
    allowed = allocate.greedy(found, wanted)
    density = {name: allowed[name] / shapes[name].parameters for name in shapes}
    assert density["layers.0.mlp.up_proj"] == min(density.values())
    # A template whose statistic is none is judged by the inputs all the same.
    assert allocate.curves(llama, Magnitude(), long, shares=(0.5,)).keys() == found.keys()


def test_curves_of_oats_and_of_fused_matrices(families, long):
    phi = families["phi3"]()
    found = allocate.curves(phi, OATS(iterations=2), long, shares=(0.5,), select="*.qkv_proj")
    (curve, *_) = found.values()
    assert 0 < curve.error[1] < 1


def test_sink_scores_follow_what_the_mlp_writes_at_the_first_token(llama, long):
    """A massive write of block 1's MLP, at the first token alone, by an embedding of its own."""
    for batch in long:
        batch[:, 0] = 1
    with torch.no_grad():
        up = linears(llama)["layers.1.mlp.down_proj"]
        up.weight *= 100
    scores = allocate.sink_scores(llama, long)
    assert scores["layers.1.mlp.down_proj"] == 1
    assert scores["layers.1.mlp.down_proj"] == scores["layers.1.mlp.up_proj"]
    assert scores["layers.0.mlp.up_proj"] < 0.9
    assert "layers.0.self_attn.v_proj" not in scores
    assert all(0 <= score <= 1 for score in scores.values())
