"""Gates and sinks: what is simulated is what decodes, and every way reads its budget."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bridge.decode.forced import decoded_losses
from bridge.decode.inputs import calibrate
from bridge.decode.plan import Setting, read_share
from bridge.decode.recipe import fit
from bridge.decode.sinks import scored_plan, shuffled, sink_masks
from bridge.decode.sparsified import sparsified
from bridge.equal import shapes_of
from bridge.sink_tokens import FIRST, LATER, ORDINARY
from bridge.sites import linears
from experiments import report
from experiments.decoding import sink_fit, sink_judge, sinks
from experiments.decoding.gates import Gate, Keep, Phase, gated
from experiments.decoding.sink_read import Text, check_head, look
from experiments.decoding.sink_ways import Calibration, Spending, dense_tokens
from experiments.intervals import Interval
from experiments.measure import Material
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.serial import plain
from experiments.settings import BadOption, Reading
from mech.errors import BadInput

INPUTS = Inputs("tiny", "0", "words", "0", "no BOS", (1,), "cpu", "float32", 1, {})
SEQ = 64


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=36,
        intermediate_size=52,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=50,
        max_position_embeddings=SEQ,
    )
    found: Any = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        # Fresh heads look everywhere alike, and fresh blocks write next to nothing.
        for layer in found.model.layers:
            layer.self_attn.q_proj.weight *= 20
            layer.self_attn.k_proj.weight *= 20
            layer.self_attn.o_proj.weight *= 10
            layer.mlp.down_proj.weight *= 10
    return found.requires_grad_(False)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(2, 50, (8, SEQ), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def calibration(model, ids):
    labels = torch.full((4, SEQ), ORDINARY)
    labels[:, 0] = FIRST
    labels[:, 35:40] = LATER
    return Calibration(calibrate(model, [ids[:4]]), labels, (3, 7))


def losses(model, ids, first: int) -> torch.Tensor:
    logits = model(input_ids=ids, use_cache=False).logits[:, first:-1]
    wanted = ids[:, first + 1 :]
    return torch.nn.functional.cross_entropy(logits.mT, wanted, reduction="none")


@pytest.mark.parametrize("sparse_from", [0.0, 0.5])
def test_what_is_simulated_is_what_decodes(model, ids, calibration, sparse_from):
    """Thresholds, low rank and dense leading tokens: `bridge.decode` on the same tokens."""
    setting = Setting(0.5, 0.6, "column", "svd")
    plan = dict.fromkeys(linears(model), setting)
    recipe = fit(model, plan, calibration.inputs)
    factors = {name: (recipe.down[name], recipe.up[name]) for name in plan}
    spent = Spending(linears(model), plan, factors, calibration, "plain", 0.0)
    keeps = spent.keeps(spent.channels())
    for name, keep in keeps.items():
        torch.testing.assert_close(keep.threshold, recipe.thresholds[name], rtol=1e-6, atol=0)
    first = int(SEQ * sparse_from)
    with gated(model, keeps) as phase:
        phase.begin(torch.arange(SEQ).expand(4, -1) < first)
        ours = losses(model, ids[4:], 0)
        share = phase.read[:, first:].mean() / sum(m.weight.numel() for m in spent.linears.values())
    with sparsified(model, recipe, sparse_from=sparse_from):
        theirs = losses(model, ids[4:], 0)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (ours - losses(model, ids[4:], 0)).abs()[:, first:].mean() > 0.01
    assert 0.35 < share < 0.65
    if first:
        torch.testing.assert_close(ours[:, :first], losses(model, ids[4:], 0)[:, :first])


def test_decoding_step_by_step_is_one_pass_with_a_dense_prompt(model, ids, calibration):
    """The cache holds what the pass holds: dense keys of the prompt, gated ones after it."""
    plan = dict.fromkeys(linears(model), Setting(0.5, 0.8, "magnitude", "svd"))
    recipe = fit(model, plan, calibration.inputs)
    with sparsified(model, recipe, sparse_from=1.0) as decoding:
        stepwise = decoded_losses(model, ids[4:], SEQ // 4)
        assert decoding.tokens_sparse == pytest.approx((SEQ - 1 - SEQ // 4) / (SEQ - 1))
    with sparsified(model, recipe, sparse_from=0.25):
        at_once = losses(model, ids[4:], SEQ // 4)
    torch.testing.assert_close(stepwise, at_once, rtol=1e-4, atol=1e-4)
    with sparsified(model, recipe, sparse_from=0.0):
        every = losses(model, ids[4:], SEQ // 4)
    assert (every - at_once).abs().mean() > 1e-3  # the prompt's gates are seen by what follows


@pytest.mark.parametrize("prompt", [0, SEQ - 1])
def test_nothing_to_decode_is_said(model, ids, prompt):
    with pytest.raises(BadInput, match="two left to be decoded"):
        decoded_losses(model, ids, prompt)


def work(model, ids, calibration, config: sinks.Config) -> sink_fit.Work:
    material = Material(ids[:4], ids[4:], ids[4:], None, INPUTS)
    scores = {name: number / 30 for number, name in enumerate(linears(model))}
    names = [f"layers.{layer}.self_attn.o_proj" for layer in range(3)]
    weights = [linears(model)[name].weight.numpy() for name in names]
    return sink_fit.Work(
        config, model, "0", material, linears(model), weights, calibration, scores,
        calibration.labels, Progress(), {}, {},
    )  # fmt: skip


WAYS = ("first", "sinks", "tokens", "floor", "always", "always-random",
        "makers", "shuffled", "top", "random", "noise")  # fmt: skip


@pytest.fixture(scope="module")
def result(model, ids, calibration, tmp_path_factory):
    config = sinks.Config(
        sparsities=(0.5,),
        methods=("teal", "rsparse"),
        ways=WAYS,
        sparse_from=(0.0, 0.5),
        amounts=sinks.Amounts(4, 4, SEQ, 3),
        state=tmp_path_factory.mktemp("state"),
    )
    before = {name: p.clone() for name, p in model.state_dict().items()}
    found = sink_judge.compared(work(model, ids, calibration, config))
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    return found


def test_every_way_reads_its_budget(result):
    """Of text that it was not fitted on, tokens that stay dense and factors included."""
    assert len(result.rows) == 2 * (2 + len(WAYS)) - 1  # the first token is dense from .5 as it is
    for row in result.rows:
        assert row.read == pytest.approx(0.5, abs=0.02), row.variant
    by_way = {row.variant.way: row for row in result.rows if row.variant.sparse_from == 0}
    assert by_way["sinks"].kinds[1:] == (1, 1)
    assert by_way["first"].kinds[1] == 1
    assert by_way["top"].kinds == pytest.approx((0.5, 0.5, 0.5), abs=0.01)
    # Control and way spend as much on ordinary tokens that are gated.
    assert by_way["tokens"].kinds[0] > by_way["sinks"].kinds[0]


def test_rounds_correct_for_what_gates_upstream_change(model, ids, calibration):
    """Thresholds of the dense model's inputs read something else of what gates are given."""
    off = {}
    for rounds in (0, 4):
        config = sinks.Config(amounts=sinks.Amounts(rounds=rounds))
        job = work(model, ids, calibration, config)
        spent = sink_fit.spending(job, sinks.Variant(0.0, 0.5, "teal"))
        shares = sink_fit.asked(job, spent)
        read = sink_fit.gates_read(job, spent, shares)
        apart = [abs(read[name] - target) for name, target in spent.channels().items()]
        off[rounds] = sum(apart) / len(apart)
    assert off[4] < off[0] / 4


def test_every_pair_is_compared(result):
    pairs = {(g.variant.way, g.other) for g in result.gains}
    assert pairs == {(way, "plain") for way in WAYS} | set(sinks.CONTROL_OF.items())
    by_pair = {(g.variant.way, g.other): g for g in result.gains if g.variant.sparse_from == 0}
    rows = {r.variant.way: r for r in result.rows if r.variant[:3] == (0.0, 0.5, "teal")}
    gain = by_pair["sinks", "tokens"]
    assert gain.nll.mean == pytest.approx(rows["sinks"].nll.mean - rows["tokens"].nll.mean)
    assert gain.read == pytest.approx(rows["sinks"].read / rows["tokens"].read)


def test_the_page_says_what_the_intervals_say(result):
    first, second = sinks.sections(result)
    assert any("of the dense model's first sinks" in line for line in first.text)
    aware = [w for w in WAYS if w in ("first", "sinks", "floor", "always", "makers")]
    assert len(second.text) == 2 * len(aware) - 1
    assert len(second.tables) == 2


def test_a_verdict_needs_an_interval_and_a_control():
    from experiments.decoding.sink_sections import verdict

    def gain(low: float, high: float, other: str) -> sinks.Gain:
        nll = Interval((low + high) / 2, low, high, 9)
        return sinks.Gain(sinks.Variant(0, 0.7, "teal", "sinks"), other, nll, None, None, None, 1)

    better, none = gain(-0.3, -0.1, "plain"), gain(-0.1, 0.2, "tokens")
    said = verdict(better, none)
    assert "it predicts better" in said
    assert "not clear of its control" in said
    assert "it predicts worse" in verdict(gain(0.1, 0.3, "plain"), None)
    assert "better than its control" in verdict(better, gain(-0.3, -0.1, "tokens"))


def test_a_run_goes_on_from_its_folder(model, ids, calibration, result, monkeypatch):
    monkeypatch.setattr(sink_judge, "look", None)  # a pass would fail
    again = sink_judge.compared(work(model, ids, calibration, result.config))
    assert again.rows == result.rows
    assert again.gains == result.gains


def test_from_a_folder_and_a_text_to_a_page(tmp_path):
    """As a user runs it, at its smallest."""
    tiny.tiny_llama(tmp_path / "model")
    tiny.random_text(tmp_path / "text", 0)
    config = sinks.Config(
        Reading(str(tmp_path / "model"), tmp_path / "text"),
        sparsities=(0.5,),
        methods=("rsparse-moment",),
        ways=("always", "makers", "top"),
        sparse_from=(0.0,),
        amounts=sinks.Amounts(2, 2, SEQ, 1),
        state=tmp_path / "state",
    )
    found = sinks.run(config, Progress())
    assert [row.variant.way for row in found.rows] == ["plain", "always", "makers", "top"]
    assert json.loads(json.dumps(plain(found)))["tokens"]["first tokens"] == 2
    folder = tmp_path / "page"
    folder.mkdir()
    report.write(folder, "sinks", sinks.sections(found), {})
    assert len(list((folder / "pictures").glob("*.png"))) == 2


def test_as_many_other_tokens_stay_dense(calibration):
    labels = calibration.labels
    some = dense_tokens("tokens", labels)
    assert torch.equal(some.sum(dim=1), (labels != ORDINARY).sum(dim=1))
    assert not bool((some & (labels != ORDINARY)).any())
    assert torch.equal(dense_tokens("first", labels), labels == FIRST)
    assert not bool(dense_tokens("plain", labels).any())


def test_every_rule_keeps_what_it_says(generator):
    linear = torch.nn.Linear(40, 24)
    x = torch.randn(2, 5, 40, generator=generator)
    x[0, 0] *= 0.01  # a starved token
    threshold = torch.rand(40, generator=generator) + 0.2
    m = x.abs() > threshold

    def run(keep: Keep) -> tuple[torch.Tensor, Phase]:
        phase = Phase()
        phase.begin(torch.zeros(2, 5, dtype=torch.bool))
        with torch.no_grad():
            return Gate(linear, keep, phase, 0)(x), phase

    plain, phase = run(Keep("threshold", threshold))
    torch.testing.assert_close(plain, linear(x * m))
    torch.testing.assert_close(phase.read, m.sum(dim=-1).double() * 24)
    _, phase = run(Keep("top", threshold, count=7))
    assert bool((phase.read == 7 * 24).all())
    largest = (x.abs() / threshold).argsort(dim=-1, descending=True)[..., :7]
    top, _ = run(Keep("top", threshold, count=7))
    torch.testing.assert_close(
        top, linear(torch.zeros_like(x).scatter(-1, largest, x.gather(-1, largest)))
    )
    floor, phase = run(Keep("floor", threshold, count=12, least=6.0))
    assert phase.read[0, 0] == 12 * 24
    torch.testing.assert_close(floor[1], plain[1])
    _, phase = run(Keep("random", threshold, share=0.25))
    assert float(phase.read.mean()) == pytest.approx(0.25 * 40 * 24, rel=0.3)
    noisy, _ = run(Keep("noise", threshold))
    torch.testing.assert_close((noisy - linear(x)).norm(dim=-1), (plain - linear(x)).norm(dim=-1))
    assert (noisy - plain).norm() > 0.1 * (plain - linear(x)).norm()


def test_a_plan_that_knows_the_sinks_reads_the_same(model):
    scores = {name: float("mlp" in name and ".1." in name) for name in linears(model)}
    plan = scored_plan(model, scores, Setting(0.6), spread=0.1)
    shapes = {name: linear.shapes[0] for name, linear in shapes_of(model).items()}
    assert read_share(plan, shapes) == pytest.approx(0.4, abs=1e-3)
    kept = {name: 1 - setting.sparsity for name, setting in plan.items()}
    favoured, other = kept["layers.1.mlp.up_proj"], kept["layers.0.mlp.up_proj"]
    assert favoured - other == pytest.approx(0.2, abs=0.01)
    moved = shuffled(scores, seed=2)
    assert sorted(moved.values()) == sorted(scores.values())
    assert {name.split(".")[1] for name, score in moved.items() if score} != {"1"}


def test_sinks_are_left_out_of_calibration(model, ids):
    masks = sink_masks(model, [ids[:4]])
    assert bool(masks[0][:, 0].all())
    read = calibrate(model, [ids[:4]], exclude=masks).read["layers.0.mlp.up_proj"]
    assert len(read.rows) == int((~masks[0]).sum())
    assert not bool((read.places[:, 1] == 0).any())


def test_scores_of_a_decoded_part_are_means_over_its_queries(model, ids):
    """α from the first sparse query on, against attention written out."""
    text = Text(ids[4:], torch.zeros(4, SEQ, dtype=torch.int64), 0.5)
    weights = [linears(model)[f"layers.{i}.self_attn.o_proj"].weight.numpy() for i in range(3)]
    looks, nll, _ = look(model, weights, text, None, lambda _: None)
    eager: Any = LlamaForCausalLM(model.config)
    eager.load_state_dict(model.state_dict())
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        pattern = eager.eval()(input_ids=ids[4:], output_attentions=True).attentions[1]
    alpha = pattern[:, :, SEQ // 2 :].sum(dim=2)
    alpha /= SEQ - torch.arange(SEQ).clamp(min=SEQ // 2)
    np.testing.assert_array_equal(looks[0][1].found, (alpha > 0.1).numpy())
    expected = losses(model, ids[4:], SEQ // 2).mean(dim=1)
    np.testing.assert_allclose(nll, expected.numpy(), rtol=1e-5)


def test_a_head_that_does_more_is_refused(model, ids, monkeypatch):
    check_head(model, ids[0])
    forward = type(model).forward

    def capped(self, *args, **kwargs):
        out = forward(self, *args, **kwargs)
        out.logits = 0.5 * out.logits
        return out

    monkeypatch.setattr(type(model), "forward", capped)
    with pytest.raises(BadInput, match="output head"):
        check_head(model, ids[0])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sparsities": (0.99,)}, "sparsities"),
        ({"sparse_from": (1.0,)}, "sparse-from"),
        ({"ways": ("top", "top")}, "ways"),
        ({"amounts": sinks.Amounts(windows=1)}, "windows"),
        ({"spread": 0.7}, "spread"),
        ({"state": Path(__file__)}, "no folder that can be written"),
    ],
)
def test_options_that_measure_nothing_are_refused(options, named):
    with pytest.raises(BadOption, match=named):
        sinks.check(sinks.Config(**options))
