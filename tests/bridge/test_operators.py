"""The laws of operators, over every kind."""

import pytest
import torch
from torch import Tensor

from bridge.operators import Affine, Dense, LinearOperator, LowRank, Sparse, Stack, Sum

D_OUT, D_IN = 7, 11
G = torch.Generator().manual_seed(5)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=G)


def sparse(d_out: int = D_OUT) -> Sparse:
    weight = draw(d_out, D_IN)
    return Sparse(torch.where(weight > 0, weight, 0))


def low() -> LowRank:
    return LowRank(draw(D_OUT, 3), draw(3, D_IN))


OPERATORS = {
    "dense": lambda: Dense(draw(D_OUT, D_IN)),
    "sparse": sparse,
    "low_rank": low,
    "sum": lambda: sparse() + low(),
    "nested sum": lambda: sparse() + low() + Dense(draw(D_OUT, D_IN)),
    "stack": lambda: Stack([sparse(3), Sum([sparse(4), LowRank(draw(4, 1), draw(1, D_IN))])]),
}


@pytest.fixture(params=OPERATORS)
def operator(request):
    return OPERATORS[request.param]()


def terms(operator) -> list[LinearOperator]:
    return [m for m in operator.modules() if isinstance(m, LinearOperator)]


@pytest.fixture
def x(generator):
    return torch.randn(2, 5, D_IN, generator=generator)


def agree(actual, expected):
    # Dot products of 11 and of rank 3 in float32, in another order.
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_applying_is_multiplying_by_the_dense_form(operator, x):
    assert operator.dense().shape == operator.shape == (D_OUT, D_IN)
    agree(operator(x), x @ operator.dense().mT)
    assert operator(x).abs().max() > 0.1


def test_so_it_is_with_any_term_off(operator, x):
    for term in terms(operator):
        term.active = False
        agree(operator(x), x @ operator.dense().mT)
        term.active = True


def test_off_is_zero_and_on_again_is_exactly_as_before(operator, x):
    before, matrix = operator(x), operator.dense()
    counts = operator.parameters_kept(), operator.bits(), operator.flops()
    for term in terms(operator):
        term.active = False
    assert operator(x).count_nonzero() == 0
    assert operator.dense().count_nonzero() == 0
    assert counts == (operator.parameters_kept(), operator.bits(), operator.flops())
    for term in terms(operator):
        term.active = True
    assert torch.equal(operator(x), before)
    assert torch.equal(operator.dense(), matrix)


def test_one_term_off_leaves_the_other(x):
    s, low_rank = sparse(), low()
    both = s + low_rank
    low_rank.active = False
    assert torch.equal(both(x), s(x) + 0)
    low_rank.active, s.active = True, False
    assert torch.equal(both(x), low_rank(x) + 0)


def test_the_order_of_a_sum_does_not_matter(x):
    a, b, c = sparse(), low(), Dense(draw(D_OUT, D_IN))
    agree(Sum([a, b, c])(x), Sum([c, a, b])(x))
    assert torch.equal((a + b)(x), (b + a)(x))


def test_a_bias_is_added_and_no_switch_touches_it(operator, x):
    bias = draw(D_OUT)
    affine = Affine(operator, bias)
    agree(affine(x), x @ operator.dense().mT + bias)
    for term in terms(operator):
        term.active = False
    assert torch.equal(affine(x), bias.expand(2, 5, D_OUT))


def test_state_dict_round_trips_and_dtype_moves(operator, x):
    fresh = {name: torch.zeros_like(t) for name, t in operator.state_dict().items()}
    saved = {name: t.clone() for name, t in operator.state_dict().items()}
    before = operator(x)
    operator.load_state_dict(fresh)
    assert operator(x).count_nonzero() == 0
    operator.load_state_dict(saved)
    assert torch.equal(operator(x), before)
    assert operator.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16


def test_an_operator_owns_its_numbers(x):
    weight = draw(D_OUT, D_IN)
    operator = Dense(weight)
    before = operator(x)
    weight.zero_()
    assert torch.equal(operator(x), before)


def test_a_stack_is_its_parts_one_after_the_other(x):
    a, b = sparse(3), sparse(4)
    assert torch.equal(Stack([a, b])(x), torch.cat([a(x), b(x)], -1))
    assert torch.equal(Stack([a, b]).dense(), torch.cat([a.dense(), b.dense()]))
