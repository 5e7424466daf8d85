"""Rows and columns that are left act as the matrix with the others zero."""

import json

import pytest
import torch

from bridge.operators import Dense, Stack
from bridge.serial import describe, rebuild, tensors
from bridge.sliced import Sliced
from mech.errors import BadInput

SHAPE = (7, 9)
ROWS, COLUMNS = torch.tensor([0, 3, 6]), torch.tensor([1, 2, 5, 8])
SIDES = {
    "rows": (ROWS, None),
    "columns": (None, COLUMNS),
    "both": (ROWS, COLUMNS),
    "neither": (None, None),
    "no row": (torch.tensor([], dtype=torch.int64), None),
}


@pytest.fixture(params=SIDES)
def sliced(request, generator):
    rows, columns = SIDES[request.param]
    whole = torch.randn(SHAPE, generator=generator)
    part = whole if rows is None else whole[rows]
    part = part if columns is None else part[:, columns]
    mask = torch.ones(SHAPE, dtype=torch.bool)
    for axis, index in enumerate((rows, columns)):
        if index is not None:
            gone = torch.ones(SHAPE[axis], dtype=torch.bool).index_fill(0, index, False)
            mask[gone if axis == 0 else (slice(None), gone)] = False
    return Sliced(part, shape=SHAPE, rows=rows, columns=columns), torch.where(mask, whole, 0)


def test_it_is_the_matrix_with_the_others_zero(sliced, generator):
    operator, expected = sliced
    assert torch.equal(operator.dense(), expected)
    x = torch.randn(2, 3, SHAPE[1], generator=generator)
    torch.testing.assert_close(operator(x), x @ expected.mT)
    operator.active = False
    assert operator(x).count_nonzero() == 0
    assert operator.dense().count_nonzero() == 0


def test_what_is_counted_is_what_is_stored(sliced):
    operator, expected = sliced
    kept = operator.weight.numel()
    assert operator.parameters_kept() == kept == int(expected.count_nonzero())
    places = sum(
        size
        for size, index in zip(SHAPE, (operator.rows, operator.columns), strict=True)
        if index is not None
    )
    assert operator.bits() == 32 * kept + places
    assert operator.flops() == 2 * kept


def test_a_stack_of_whole_and_sliced_heads(generator):
    whole = torch.randn(4, 9, generator=generator)
    few = torch.randn(3, 4, generator=generator)
    stack = Stack([Dense(whole), Sliced(few, shape=(3, 9), columns=COLUMNS)])
    x = torch.randn(5, 9, generator=generator)
    torch.testing.assert_close(stack(x), x @ stack.dense().mT)
    torch.testing.assert_close(stack(x)[:, 4:], x[:, COLUMNS] @ few.mT)


def test_it_is_told_and_built_again(sliced):
    operator, expected = sliced
    again = rebuild(json.loads(json.dumps(describe(operator))), tensors(operator))
    assert type(again) is Sliced
    assert torch.equal(again.dense(), expected)
    assert again.bits() == operator.bits()


def test_half_precision_moves_numbers_and_leaves_places(generator):
    operator = Sliced(torch.randn(3, 9, generator=generator), shape=SHAPE, rows=ROWS)
    operator.to(torch.bfloat16)
    assert operator.dense().dtype == torch.bfloat16
    assert operator.rows is not None
    assert torch.equal(operator.rows, ROWS)
    assert set(operator.state_dict()) == {"weight", "rows"}


@pytest.mark.parametrize(
    "rows",
    [None, ROWS[:2], ROWS.flip(0), torch.tensor([0, 0, 3]), torch.tensor([-1, 2, 3]), ROWS + 1],
)
def test_places_that_do_not_fit_are_refused(rows):
    with pytest.raises(BadInput, match="rows"):
        Sliced(torch.zeros(3, 9), shape=SHAPE, rows=rows)
