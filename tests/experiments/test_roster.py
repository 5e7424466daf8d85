"""Every method by the name and the options of the command line."""

from fractions import Fraction
from typing import Any

import pytest

from bridge.method import ComponentMethod, Method
from bridge.methods import METHODS
from bridge.patterns import exact
from bridge.quantizers import MXINT, RoundToNearest
from experiments import roster
from experiments.settings import BadOption, Budget
from mech.errors import BadInput


def build(name: str, budget: Budget) -> Any:
    """Any: the fields that are asked for below are those of one class each."""
    return roster.build(name, budget)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.7])
def test_every_method_is_built_with_the_sparsity_that_was_written(name, sparsity):
    method = build(name, Budget(sparsity=sparsity))
    assert isinstance(method, Method | ComponentMethod)
    assert type(method) is METHODS[name]
    if (pattern := getattr(method, "pattern", None)) is not None:
        assert exact(pattern.density) == 1 - Fraction(str(sparsity))
    if (compression := getattr(method, "compression", None)) is not None:
        assert compression == sparsity


def test_options_reach_the_methods_that_have_them():
    oats = build("oats", Budget(rank_ratio=0.4, iterations=12))
    assert (oats.rank_ratio, oats.iterations) == (0.4, 12)
    gptq = build("gptq", Budget(bits=3, group=32, act_order=True))
    assert (gptq.quantizer, gptq.act_order) == (RoundToNearest(3, 32), True)
    assert build("lqer", Budget(grid="mxint", bits=4, group=16)).quantizer == MXINT(4, 16)
    assert build("qera", Budget(rank=8)).rank == 8
    assert build("qera", Budget()).quantizer.bits == 3
    assert build("loftq", Budget(iterations=80)).iterations == 5


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("wanda", {"bits": 3}, "--bits 3: wanda"),
        ("oats", {"group": 32}, "--group 32: oats"),
        ("rounding", {"rank": 4}, "--rank 4: rounding"),
        ("qera", {"act_order": True}, "--act-order True: qera"),
        ("magnitude", {"grid": "mxint"}, "--grid mxint: magnitude"),
        ("qera", {"rank": 0}, "--rank 0"),
    ],
)
def test_an_option_without_effect_is_refused(name, options, what):
    with pytest.raises(BadOption, match=what):
        build(name, Budget(**options))


def test_unknown_names_and_empty_budgets_are_refused():
    with pytest.raises(BadInput, match="did you mean wanda"):
        build("wandas", Budget())
    for sparsity in (0.0, 1.0, -0.5):
        with pytest.raises(BadInput, match="not in"):
            build("rounding", Budget(sparsity=sparsity))
