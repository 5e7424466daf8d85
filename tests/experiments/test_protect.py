"""Sink-aware compression beside plain: what is compared, on what, and what is said of it."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bridge.compress import compressed
from bridge.methods.wanda import Wanda
from experiments import protect, protecting, tags_kept
from experiments.intervals import Interval
from experiments.measure import Material
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.recalls import share
from experiments.settings import Sizes
from mech.load import Loaded

INPUTS = Inputs("tiny", "0", "words", "0", "no BOS", (1,), "cpu", "float32", 1, {})


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        max_position_embeddings=64,
    )
    found: Any = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        # Fresh heads look everywhere alike: sharper ones have sinks.
        for layer in found.model.layers:
            layer.self_attn.q_proj.weight *= 20
            layer.self_attn.k_proj.weight *= 20
    return found.requires_grad_(False)


@pytest.fixture(scope="module")
def ids():
    found = torch.randint(2, 50, (12, 64), generator=torch.Generator().manual_seed(0))
    found[:, 0] = 1
    return found


def test_every_way_at_one_budget(model, ids):
    config = protect.Config(
        sparsities=(0.5,),
        bases=("wanda", "oats"),
        ways=("weighted", "protected", "rows", "sinks", "mean", "random"),
        factors=(2.0, 8.0),
        sizes=Sizes(3, 4, 64, 4, 64),
    )
    before = {name: p.clone() for name, p in model.state_dict().items()}
    material = Material(ids[:3], ids[4:8], ids[8:], None, INPUTS)
    loaded: Any = Loaded(model, None, "tiny", "", "0")  # type: ignore[arg-type]
    result = protecting.answer(config, loaded, material, Progress())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert result.tokens["first tokens"] == 3
    assert sum(result.tokens.values()) == 3 * 64
    assert set(result.chosen.values()) <= {2.0, 8.0}
    assert [(row.base, row.way) for row in result.rows] == [
        (base, way)
        for base in ("wanda", "oats")
        for way in ("plain", "weighted", "protected", "rows", "sinks", "mean", "random")
    ]
    # Six ways against plain; the four that know sinks against the two that do not; two bases.
    assert len(result.gains) == 2 * (6 + 4 * 2)
    beside = [(g.way, g.other) for g in result.gains if g.base == "oats" and g.other != "plain"]
    aware = ("weighted", "protected", "rows", "sinks")
    assert beside == [(way, other) for way in aware for other in ("mean", "random")]
    by_way = {(row.base, row.way): row for row in result.rows}
    for base in ("wanda", "oats"):
        plain = by_way[base, "plain"].density
        for way in config.ways:
            row = by_way[base, way]
            assert row.density <= plain
            assert row.density > plain - 0.06  # a row's step of 32 columns, and one rank
    (section,) = protect.sections(result)
    assert len(section.text) == 1 + 28 + bool(result.outliers)
    assert "of 2, 8 chosen" in section.tables[0].caption
    assert "about 81% at 4" not in section.tables[0].caption
    assert "n = 4 are too narrow" in section.tables[0].caption


def test_tags_are_the_models_own_and_change_with_w_o(model, ids):
    names = tags_kept.outputs(model)
    dense = tags_kept.tagged(model, names, ids[:5], None, lambda _: None)
    same = tags_kept.tagged(model, names, ids[:5], dense.where, lambda _: None)
    assert len(dense.tags) == dense.where.sum() > 0
    kept = share(tags_kept.tags_kept(same, dense))
    assert kept is not None
    assert kept.mean == pytest.approx(1)
    # One tag, restated: its value times its head's columns of W_O. Heads 0 and 3 would read the
    # right key head also if query heads shared them in turns.
    at = np.nonzero(dense.where)
    one = int(np.flatnonzero(np.isin(at[2], (1, 2)))[-1])
    layer, sequence, head, key = (int(i[one]) for i in at)
    attention = model.model.layers[layer].self_attn
    seen: list[torch.Tensor] = []
    hook = attention.v_proj.register_forward_hook(lambda _, __, out: seen.append(out))
    model(ids[sequence : sequence + 1])
    hook.remove()
    d_head, kv = attention.head_dim, head // 2
    value = seen[0][0, key, kv * d_head : (kv + 1) * d_head]
    columns = attention.o_proj.weight[:, head * d_head : (head + 1) * d_head]
    np.testing.assert_allclose(dense.tags[one], columns @ value, rtol=1e-4, atol=1e-6)
    with compressed(model, Wanda(), [ids[5:]], select="*.o_proj"):
        less = share(
            tags_kept.tags_kept(
                tags_kept.tagged(model, names, ids[:5], dense.where, lambda _: None), dense
            )
        )
    assert less is not None
    assert less.mean < 0.98


def verdict(nll: float, recall: float, spread: float = 0.01, precision: float = 0.0) -> str:
    def within(mean: float) -> Interval:
        return Interval(mean, mean - spread, mean + spread, 9)

    kept = within(recall), within(precision)
    gain = protect.Gain(0.7, "wanda", "protected", within(nll), *kept, None)
    return protect.verdict(gain)


def test_a_verdict_follows_the_intervals():
    assert "better in both" in verdict(-0.3, 0.2)
    assert "worse in both" in verdict(0.3, -0.2)
    assert "a better prediction for fewer sinks" in verdict(-0.3, -0.2)
    assert "no clear difference in either" in verdict(-0.3, 0.2, spread=0.5)
    assert "70%" in verdict(-0.3, 0.2)


def test_a_control_is_named_as_what_it_is():
    some = Interval(-0.3, -0.4, -0.2, 9)
    said = protect.verdict(protect.Gain(0.7, "wanda", "protected", some, some, None, None, "mean"))
    assert "against the control: mean of ordinary tokens kept" in said
    assert "plain" not in said


def test_a_price_in_precision_is_told():
    assert "that the dense model has not" in verdict(-0.3, 0.2, precision=-0.1)
    assert "that the dense model has not" not in verdict(-0.3, 0.2, precision=0.1)
