"""Every method by the name and the options of the command line."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bridge import compress as driver
from bridge.adapter import parted
from bridge.fold import opened
from bridge.method import ComponentMethod, Method
from bridge.methods import COMPONENT_METHODS, METHODS
from bridge.patterns import exact
from bridge.quantizers import MXINT, RoundToNearest
from bridge.sites import operators
from experiments import compress, roster
from experiments.progress import Progress
from experiments.settings import BadOption, Budget, Reading
from mech.errors import BadInput


def build(name: str, budget: Budget) -> Any:
    """Any: the fields that are asked for below are those of one class each."""
    return roster.build(name, budget)


@pytest.mark.parametrize("name", METHODS | COMPONENT_METHODS)
@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.7])
def test_every_method_is_built_with_the_sparsity_that_was_written(name, sparsity):
    method = build(name, Budget(sparsity=sparsity))
    assert isinstance(method, Method | ComponentMethod)
    assert type(method) is (METHODS | COMPONENT_METHODS)[name]
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


NAMED = [*METHODS, *COMPONENT_METHODS, "sink-heads", "protected", "protected-wanda"]


def test_the_help_of_the_option_names_every_method():
    text = Path(compress.__file__).read_text()
    listed = text.split('method: str = "oats"')[1].split('"""')[1]
    assert sorted(re.split(r",\s+", listed.strip(" .\n"))) == sorted(NAMED)


def test_methods_that_look_for_sinks_are_fitted_to_a_model():
    torch.manual_seed(0)
    settings = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=29,
    )
    model: Any = LlamaForCausalLM(settings).eval()
    batches = list(torch.randint(3, 29, (4, 64)).split(2))
    protected: Any = roster.fitted("protected-wanda", Budget(sparsity=0.6), model, batches)
    assert protected.base == roster.build("wanda", Budget(sparsity=0.6))
    assert [label.shape for label in protected.labels] == [(2, 64), (2, 64)]
    with torch.no_grad():  # no query prefers any key: there is no sink head
        for block in model.model.layers:
            block.self_attn.q_proj.weight *= 0
    with pytest.raises(BadInput, match="no head"):
        roster.fitted("sink-heads", Budget(k=3), model, batches)
    assert isinstance(roster.fitted("wanda", Budget(), model, batches), Method)
    roster.refuse("sink-heads", Budget(k=3))
    with pytest.raises(BadOption, match="protected"):
        roster.refuse("protected", Budget(k=3))
    with pytest.raises(BadOption, match="sink-heads"):
        roster.refuse("sink-heads", Budget(bits=3))
    with pytest.raises(BadOption, match="--k 0: give at least 1"):
        roster.refuse("sink-heads", Budget(k=0))


@pytest.mark.parametrize("name", METHODS | COMPONENT_METHODS)
def test_who_leaves_low_rank_terms_is_known_before_the_work(name):
    """For the others there is no adapter to save."""
    torch.manual_seed(0)
    settings = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=29,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(settings).eval()
    budget = Budget(rank=3) if hasattr(roster.build(name, Budget()), "rank") else Budget()
    driver.compress(model, roster.build(name, budget), [torch.randint(3, 29, (2, 64))])
    ranks = [len(parted(opened(op, at)[0]).right) for at, op in operators(model).items()]
    assert any(ranks) == (name not in roster.WITHOUT_LOW_RANK)


def test_unknown_names_and_empty_budgets_are_refused():
    with pytest.raises(BadInput, match="did you mean wanda"):
        build("wandas", Budget())
    for sparsity in (0.0, 1.0, -0.5):
        with pytest.raises(BadInput, match="not in"):
            build("rounding", Budget(sparsity=sparsity))


@pytest.mark.parametrize("name", sorted(roster.COMPONENTS))
def test_ranks_of_a_component_method_are_refused_before_a_model_is_read(name, tmp_path):
    reading = Reading(str(tmp_path / "no model"))
    config = compress.Config(reading, name, ranks=2)
    with pytest.raises(BadOption, match=f"--ranks 2: {name} replaces whole components"):
        compress.run(config, Progress())


def test_ranks_that_torchrun_started_are_refused_as_those_of_the_option(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = compress.Config(Reading(str(tmp_path / "no model")), "a3")
    with pytest.raises(BadOption, match="--ranks 2: a3 replaces whole components"):
        compress.run(config, Progress())


def test_component_methods_are_known_by_name():
    """A protected one stands before any of its base; sink heads are told the model's."""
    assert set(COMPONENT_METHODS) <= roster.COMPONENTS
    assert not roster.COMPONENTS & set(METHODS)
    roster.refuse_ranks("oats", 4)
    roster.refuse_ranks("a3", 1)
