"""ctr experiment reconstruction at its smallest, and its sentences from rows made by hand."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bridge.quantizers import RoundToNearest
from bridge.sites import linears
from bridge.statistics import SecondMoment, second_moment
from experiments import reconstruction_rows as ways
from experiments.provenance import Inputs
from experiments.reconstruction import Config, Result, sections
from experiments.reconstruction_rows import DIAGONAL, EXACT, PLAIN, RICHER, SHRUNK, Few, Row

QUANTIZER = RoundToNearest(3, 8)


@pytest.fixture(scope="module")
def walked():
    """A tiny model, read on two texts and on a few tokens of one."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=97,
    )
    model = LlamaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 97, (4, 40), generator=generator)
    chosen = linears(model, "layers.[02].*")
    texts = {"fitted": ids[:2].split(1), "held out": [ids[2:]], "9": [ids[:1, :9]]}
    return model, chosen, ids, list(ways.walk(model, chosen, texts))


def test_the_walk_reads_what_the_dense_model_reads(walked):
    model, chosen, ids, blocks = walked
    assert [len(block["fitted"]) for block in blocks] == [7, 7]
    read: dict[str, torch.Tensor] = {}
    hooks = [
        linear.register_forward_pre_hook(lambda _, args, name=name: read.update({name: args[0]}))
        for name, linear in chosen.items()
    ]
    with torch.no_grad():
        model(ids[:2])
    for hook in hooks:
        hook.remove()
    for block in blocks:
        for name, found in block["fitted"].items():
            x = read[name].flatten(0, 1).double()
            torch.testing.assert_close(found.second.mean, x.mT @ x / 80, rtol=1e-4, atol=1e-6)
            mean = x.abs().mean(0)
            torch.testing.assert_close(found.magnitudes.mean, mean, rtol=1e-4, atol=1e-6)
            assert block["9"][name].second.tokens == 9


def test_every_way_is_measured_on_both_texts(walked):
    _, chosen, _, blocks = walked
    methods = ways.methods(QUANTIZER, 4)
    name = "layers.2.mlp.up_proj"
    weight = chosen[name].weight.detach()
    fitted, held_out = blocks[1]["fitted"][name], blocks[1]["held out"][name]
    found = {row.method: row for row in ways.rows(name, weight, methods, fitted, held_out)}
    assert list(found) == [*methods, RICHER]
    exact = found[EXACT]
    for other in (*ways.LOW_RANK, "random subspace", "rounding"):
        assert exact.fitted < found[other].fitted
    assert found[RICHER].bits <= exact.bits == 3 + 32 / 8 + 4 * 32 * (1 / 32 + 1 / 48)
    assert found["rounding"].bits == found["GPTQ"].bits == 7
    # The error is that of the outputs themselves.
    made = methods[EXACT](weight, fitted.second).dense()
    x = torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
    seen = second_moment.update(second_moment.init(32), x)
    direct = (x @ (weight - made).mT).norm() / (x @ weight.mT).norm()
    assert ways.judge(weight, seen)(made) == pytest.approx(float(direct), rel=1e-5)


def test_few_tokens(walked):
    _, chosen, _, blocks = walked
    name = "layers.0.mlp.gate_proj"
    weight = chosen[name].weight.detach()
    read = blocks[0]
    fits = ways.few(name, weight, QUANTIZER, 4, read["9"][name], read["held out"][name])
    ratio = {fit.form: fit.ratio for fit in fits}
    assert {fit.tokens for fit in fits} == {9}
    assert ratio[EXACT] < 2
    assert ratio[SHRUNK] < 1.1
    assert ratio[PLAIN] > 10


def test_with_a_regular_moment_the_inverse_root_is_the_exact_form(generator):
    weight = torch.randn(9, 12, generator=generator)
    x = torch.randn(200, 12, generator=generator)
    seen = second_moment.update(second_moment.init(12), x)
    made = ways.inverse_root(weight, QUANTIZER(weight).dense(), 3, seen.mean)
    exact = ways.QERA(QUANTIZER, 3, 0.0)(weight, seen).dense()
    torch.testing.assert_close(made, exact, atol=1e-4, rtol=1e-4)
    none = SecondMoment(torch.zeros(12, 12, dtype=torch.float64), 1)
    lost = ways.inverse_root(weight, QUANTIZER(weight).dense(), 3, none.mean)
    assert math.isinf(ways.judge(weight, seen)(lost))


def result(exact: float, shrunk: float) -> Result:
    errors = dict.fromkeys(ways.methods(QUANTIZER, 4), 0.5) | {RICHER: 0.1, EXACT: exact}
    names = [f"layers.{block}.mlp.up_proj" for block in (0, 3)]
    rows = [Row(name, way, error, error, 4.0) for name in names for way, error in errors.items()]
    ratios = {PLAIN: math.inf, EXACT: 1.1, SHRUNK: shrunk}
    few = [Few(name, 64, form, ratio) for name in names for form, ratio in ratios.items()]
    return Result(Config(), Inputs(), rows, few)


def test_the_verdicts_follow_the_rows():
    by_method, by_tokens = sections(result(0.4, 0.99))
    assert "QERA-approximate on 2 of 2 linears" in by_method.text[0]
    assert "GPTQ is below rounding on 0 of 2" in by_method.text[1]
    assert "below QERA-exact on 2 of 2 linears" in by_method.text[2]
    assert "is never worse than the diagonal form" in by_tokens.text[0]
    assert by_tokens.tables[0].rows[0] == ("64", "inf", "inf", "1.1 [1.1, 1.1]", "1.1", *(
        "0.99 [0.99, 0.99]", "0.99",
    ))  # fmt: skip
    by_method, by_tokens = sections(result(0.6, 1.01))
    assert "QERA-approximate on 0 of 2 linears" in by_method.text[0]
    assert "is NOT always as good as the diagonal form" in by_tokens.text[0]
    row = next(row for row in by_method.tables[0].rows if row[0] == DIAGONAL)
    assert row[-1] == "1 [1, 1]"
