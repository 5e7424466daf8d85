"""The cost of a scan: three ways that find the same, on a tiny model."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from experiments import scan, scan_ways
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.scan_floor import Floor
from experiments.scan_ways import Peak, Spent
from experiments.settings import BadOption
from mech import standing


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=48, intermediate_size=56, num_hidden_layers=3,
        num_attention_heads=6, num_key_value_heads=2, initializer_range=0.4,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def went(way: scan_ways.Way, model, tokens) -> np.ndarray:
    received, spent = scan_ways.go(way, model, tokens)
    assert received is not None
    assert 0 < spent.attention < spent.whole
    return received


def test_scan_and_eager_find_the_same_and_the_model_is_as_before(tiny):
    tokens = scan_ways.random_tokens(tiny, 70, 0)
    scanned, eager = went("scan", tiny, tokens), went("eager", tiny, tokens)
    np.testing.assert_allclose(scanned, eager, atol=1e-3)
    assert scanned.shape == (3, 1, 6, 70)
    nothing, spent = scan_ways.go("sdpa", tiny, tokens)
    assert nothing is None
    assert 0 < spent.attention < spent.whole
    assert tiny.config._attn_implementation == "sdpa"
    assert transformers.AttentionInterface()[standing.NAME] is standing.attention


def test_a_shortened_model_is_the_first_blocks(tiny):
    tokens = scan_ways.random_tokens(tiny, 33, 0)
    whole = went("scan", tiny, tokens)
    short = went("scan", scan_ways.shortened(tiny, 2), tokens)
    np.testing.assert_array_equal(short, whole[:2])


def some_result(growth=True):
    config = scan.Config(repeats=2, growth=(100, 200, 400) if growth else ())
    spent = {"scan": (2.0, 1.0), "eager": (6.0, 4.0), "sdpa": (1.6, 0.5)}
    peaks = {
        way: Peak(Spent(1.0, 1.0), n) for way, n in (("scan", 10), ("eager", 250), ("sdpa", 9))
    }
    grown = [scan.Grown(seq, Peak(Spent(seq**1.5, seq**2.0), seq * 10**6)) for seq in config.growth]
    return scan.Result(
        config, Inputs(), {way: [Spent(*s)] * 2 for way, s in spent.items()}, peaks, grown,
        Floor(0.5, 0.2, 0.1), 1e-6, 8192,
    )  # fmt: skip


def test_the_page_says_the_ratios_the_floor_and_the_exponent():
    paired, grown = scan.sections(some_result())
    rows = {row[0]: row[1] for row in paired.tables[0].rows}
    assert rows["time in attention, eager over scan"].startswith("4 [")
    assert rows["whole pass, eager over scan"].startswith("3 [")
    assert rows["whole pass, scan over plain SDPA"].startswith("1.25 [")
    assert rows["peak memory above the model, eager over scan"] == "25.0"
    assert "the scan takes 1.25 times the floor" in paired.text[1]
    assert "T^2.00, the whole pass as T^1.50" in grown.text[0]
    assert len(scan.sections(some_result(growth=False))) == 1
    assert len(grown.text) == 1
    whole = replace(some_result(), whole=Peak(Spent(1.0, 1.0), 780_000_000))
    assert "all blocks at 400 tokens" in scan.sections(whole)[1].text[1]
    assert "0.780 GB above" in scan.sections(whole)[1].text[1]


@pytest.mark.parametrize("whole", [False, True])
def test_all_blocks_are_scanned_at_the_longest_length_where_asked(tiny, monkeypatch, whole):
    asked = []

    def apart(way, name, seq, seed, blocks=None):
        asked.append((way, seq, blocks))
        return Peak(Spent(1.0, 0.5), seq)

    monkeypatch.setattr(scan_ways, "apart", apart)
    loaded = SimpleNamespace(model=tiny, name="tiny", sha256="0")
    monkeypatch.setattr("mech.load.load", lambda name, advance: loaded)
    config = scan.Config(seq=70, repeats=2, growth=(90, 80), blocks=2, whole=whole)
    result = scan.run(config, Progress())
    assert result.whole == (Peak(Spent(1.0, 0.5), 90) if whole else None)
    assert asked[3:] == [("scan", 90, 2), ("scan", 80, 2), *[("scan", 90, None)] * whole]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"seq": 64}, "--seq 64"), ({"repeats": 1}, "--repeats 1"), ({"growth": (128,)}, "--growth")],
)
def test_sizes_that_cannot_be_measured_are_named(wrong, named):
    with pytest.raises(BadOption, match=named):
        scan.run(replace(scan.Config(), **wrong), Progress())
