"""What is stored of an operator is the operator, bit for bit, or it is refused."""

import json

import pytest
import torch
from torch import Tensor

from bridge.operators import Affine, Dense, LinearOperator, LowRank, Operator, Sparse, Stack, Sum
from bridge.serial import describe, layout, rebuild, tensors
from mech.errors import BadInput


def holed(generator, d_out=7, d_in=13, dtype=torch.float32):
    weight = torch.randn(d_out, d_in, generator=generator).to(dtype)
    weight[torch.rand(d_out, d_in, generator=generator) < 0.6] = 0
    return weight


def low(generator, d_out=7, d_in=13, rank=3):
    return LowRank(
        torch.randn(d_out, rank, generator=generator), torch.randn(rank, d_in, generator=generator)
    )


OPERATORS = {
    "dense": lambda g: Dense(torch.randn(7, 13, generator=g)),
    "sparse": lambda g: Sparse(holed(g)),
    "sparse, half": lambda g: Sparse(holed(g, dtype=torch.bfloat16)),
    "sparse, double": lambda g: Sparse(holed(g, dtype=torch.float64)),
    "empty": lambda g: Sparse(torch.zeros(7, 13)),
    "low rank": low,
    "rank zero": lambda g: low(g, rank=0),
    "sum": lambda g: Sparse(holed(g)) + low(g),
    "stack of sums": lambda g: Stack([Sparse(holed(g)) + low(g), Sparse(holed(g, 5)) + low(g, 5)]),
    "affine": lambda g: Affine(
        Sum([Sparse(holed(g)), low(g), low(g)]), torch.randn(7, generator=g)
    ),
}


def bits(operator: Operator) -> dict[str, Tensor]:
    return {
        name: t.contiguous().reshape(-1).view(torch.uint8)
        for name, t in operator.state_dict().items()
    }


def the_same(a: Operator, b: Operator) -> bool:
    one, other = bits(a), bits(b)
    kinds = [type(m) for m in a.modules()] == [type(m) for m in b.modules()]
    return kinds and list(one) == list(other) and all(torch.equal(one[n], other[n]) for n in one)


@pytest.fixture(params=OPERATORS)
def operator(request, generator):
    return OPERATORS[request.param](generator)


def test_there_and_back_is_the_same_in_every_bit(operator):
    spec = json.loads(json.dumps(describe(operator), allow_nan=False))
    stored = tensors(operator)
    assert {name: (t.dtype, tuple(t.shape)) for name, t in stored.items()} == layout(spec)
    again = rebuild(spec, stored)
    assert the_same(again, operator)
    assert describe(again) == spec
    assert again.parameters_kept() == operator.parameters_kept()


def test_a_sparse_matrix_is_stored_in_the_bits_it_counts(generator):
    sparse = Sparse(holed(generator, 8, 24))
    assert sum(8 * t.nbytes for t in tensors(sparse).values()) == sparse.bits()


def test_a_negative_zero_is_nothing_and_one_that_a_cast_made_comes_back():
    assert len(tensors(Sparse(-torch.zeros(3, 5)))["values"]) == 0
    tiny = Sparse(torch.full((3, 5), -1e-30)).to(torch.float16)
    assert tiny.parameters_kept() == 0
    assert len(tensors(tiny)["values"]) == 15
    assert the_same(rebuild(describe(tiny), tensors(tiny)), tiny)


def test_a_transposed_weight_is_stored_by_its_rows(generator):
    sparse = Sparse(holed(generator))
    sparse.weight = sparse.weight.mT.contiguous().mT
    again = rebuild(describe(sparse), tensors(sparse))
    assert the_same(again, sparse)


def test_what_is_off_stays_off_and_keeps_its_numbers(generator):
    whole = OPERATORS["sum"](generator)
    whole.each()[1].active = False
    again = rebuild(describe(whole), tensors(whole))
    assert isinstance(again, Sum)
    assert [term.active for term in again.each()] == [True, False]
    assert the_same(again, whole)


class Stranger(LinearOperator):
    def matrix(self):
        return torch.zeros(2, 3)

    def product(self, x):
        return x

    shape = (2, 3)  # type: ignore[assignment]
    parameters_kept = bits = flops = lambda self: 0


def test_unknown_kinds_are_refused_by_name(generator):
    with pytest.raises(BadInput, match="a Stranger cannot be stored"):
        describe(Stranger())
    with pytest.raises(BadInput, match=r"kind 'os\.system', which this version does not know"):
        rebuild({"kind": "os.system", "tensors": {}}, {})
    spec = describe(OPERATORS["sum"](generator))
    spec["parts"][1]["kind"] = "magic"
    with pytest.raises(BadInput, match="kind 'magic'"):
        layout(spec)


def broken(spec, stored, how):
    if how == "missing":
        stored.pop("0.values")
    elif how == "too many":
        stored["0.more"] = torch.zeros(1)
    elif how == "dtype":
        stored["0.values"] = stored["0.values"].double()
    elif how == "shape":
        stored["1.left"] = stored["1.left"][1:]
    elif how == "places":
        stored["0.mask"] = stored["0.mask"].clone()
        stored["0.mask"][0] ^= 1
    elif how == "bytes":
        spec["parts"][0]["shape"] = [70, 13]
    elif how == "product":
        stored["1.left"] = torch.zeros(7, 4)
        spec["parts"][1]["tensors"]["left"][1] = [7, 4]
    elif how == "no parts":
        spec["parts"] = 3
    elif how == "slot":
        spec["parts"][0]["tensors"]["values"] = ["nn", [1]]
    return spec, stored


@pytest.mark.parametrize(
    ("how", "message"),
    {
        "missing": "0.values is missing",
        "too many": "0.more is not part of it",
        "dtype": "0.values is float64",
        "shape": "1.left is float32",
        "places": "values and .* places",
        "bytes": "place 70 x 13",
        "product": "do not belong together",
        "no parts": "damaged",
        "slot": "damaged",
    }.items(),
)
def test_what_does_not_belong_together_is_refused_in_a_line(how, message, generator):
    whole = OPERATORS["sum"](generator)
    spec, stored = broken(describe(whole), tensors(whole), how)
    with pytest.raises(BadInput, match=message) as caught:
        rebuild(spec, stored)
    assert "\n" not in str(caught.value)
