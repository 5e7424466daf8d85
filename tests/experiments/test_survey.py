"""The survey of a whole model: a planted stream, tiny models of several families, and padding."""

import numpy as np
import pytest
import torch
import transformers

from experiments.probing import survey_projections
from experiments.probing.bootstrap import over_prompts, rank_correlation
from experiments.probing.survey import survey
from experiments.probing.survey_read import Reader
from experiments.probing.survey_secondary import Tracks, places
from experiments.probing.survey_sections import sections
from experiments.probing.survey_streams import massive_found
from experiments.probing.survey_weakening import weakening
from experiments.serial import dumps
from mech.errors import BadInput
from mech.probes import reach
from mech.probes.spells import NEVER, Spell
from mech.trace import BlockTrace, Heads

LAYERS, SEQ, PROMPTS = 12, 80, 6
SIZES = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}


def planted(rng, like=(20, 33)):
    """Tokens `like` are along the first one after blocks 3 to 6, by block 3's MLP alone.

    The more of them, the less the first token gets; their norm is their score.
    """
    cosine = rng.uniform(-0.2, 0.2, (LAYERS, SEQ))
    norm = rng.uniform(0.9, 1.1, (LAYERS, SEQ))
    score = rng.uniform(0, 0.02, (LAYERS, SEQ))
    attn, mlp = rng.uniform(0, 0.1, (2, LAYERS, SEQ))
    norm[2:10, 0] = 300.0
    cosine[:, 0] = 1
    score[:, 0] = 0.6 - 0.1 * len(like)
    on = np.zeros((LAYERS, SEQ), int)
    for token in like:
        size = rng.uniform(20, 80)
        cosine[3:7, token], norm[3:7, token] = 0.97, size
        attn[3, token], mlp[3, token] = 0.0, size
        score[4:8, token], on[4:8, token] = size / 1000, 2
    later = (np.arange(SEQ) > 0) & (np.arange(SEQ) < SEQ - 16)
    return Tracks(norm, cosine, score, on, attn, mlp, np.arange(SEQ), later, 0, 1.0)


def prompts():
    rng = np.random.default_rng(0)
    return [planted(rng, tuple(range(20, 20 + 3 * n, 3))) for n in (1, 2, 3, 1, 2, 3)]


def test_the_planted_secondary_sinks_are_found_and_no_others():
    strict, phase = places(prompts())
    assert tuple(strict.span) == tuple(phase.span) == (2, 10)
    assert strict.agreed == 1
    assert strict.count is not None
    assert strict.count.mean == 2
    assert strict.kinds["secondary"] == strict.count
    assert strict.levels == [(3, 4, 12)]
    assert strict.by_mlp is not None
    assert strict.by_mlp.low == 1
    assert (strict.maker, strict.made_by_attention) == (3, over_prompts(np.zeros(6)))
    assert strict.attended is not None
    assert strict.attended.low == 1
    assert strict.attended_layers is not None
    assert strict.attended_layers.mean == 4
    assert strict.attended_others == over_prompts(np.zeros(6))
    # Norm is score as planted, and lifetime is the same for all.
    assert strict.norm_score is not None
    assert strict.norm_score.mean == pytest.approx(1)
    assert strict.norm_lifetime is None
    assert strict.crowding is not None
    assert strict.crowding.mean == pytest.approx(-1)


def test_where_nothing_is_planted_nothing_is_found():
    rng = np.random.default_rng(1)
    strict, _ = places([planted(rng, ()) for _ in range(4)])
    assert strict.count == over_prompts(np.zeros(4))
    assert strict.maker is strict.by_mlp is strict.norm_score is strict.creation is None


def test_the_primary_sink_weakens_where_others_are_planted():
    found = prompts()
    for track in found:
        track.score[4:8, 0] -= 0.25
    weak = weakening(found)
    assert weak.middle is not None
    # Blocks 4 to 7 of 12, all of the middle third and none of the others.
    assert weak.middle.mean == pytest.approx(-0.25)
    assert weak.with_number is not None
    assert weak.with_number.high < -0.5
    plain = weakening(prompts()).middle
    assert plain is not None
    assert plain.mean == pytest.approx(0)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_fewer_than_three_layers_have_no_middle(layers):
    cut = [t._replace(**{n: getattr(t, n)[:layers] for n in t._fields[:6]}) for t in prompts()]
    assert (weakening(cut).middle is None) == (layers < 3)


def test_prompts_are_resampled_whole():
    """The same pair of units in every prompt: no interval is wider than none."""
    same = [np.array([1.0, 2.0, 3.0])] * 5
    assert rank_correlation(same, same) == (pytest.approx(1), pytest.approx(1), pytest.approx(1), 5)
    assert rank_correlation(same[:1], same[:1]) is None
    assert rank_correlation([np.zeros(0)] * 5, [np.zeros(0)] * 5) is None
    assert over_prompts(np.array([1.0, np.nan])) is None
    assert over_prompts(np.array([1.0, np.nan, 1.0])) == (1, 1, 1, 2)


def block(resid, received, real=None):
    """A block that adds nothing, with full causal attention."""
    batch, seq, _ = resid.shape
    real = np.ones((batch, seq), bool) if real is None else real
    low = np.broadcast_to(real.argmax(axis=1)[:, None], (batch, seq)).copy()
    high = np.where(real, np.arange(seq), low - 1)
    n_heads = received.shape[1]
    z = np.ones((batch, n_heads, seq, 2), np.float32)
    heads = Heads(z, z, z, z[..., 0], low, high, 1.0, None)
    zero = np.zeros_like(resid)
    causal = reach.causal_reach(real)
    missing = np.zeros((batch, n_heads), np.float32)
    return BlockTrace(0, real, resid, resid, zero, zero, received, causal, missing, z, heads)


def test_an_all_zero_stream_has_nothing():
    found = Reader(0.1)(block(np.zeros((2, SEQ, 8), np.float32), np.ones((2, 3, SEQ), np.float32)))
    assert not found.nearly.any()
    assert found.steps == found.nearly_steps == []
    assert not found.cosine.any()
    assert not found.hits.any()
    # Every key gets its own query's attention: only the tail passes, and is not guarded.
    assert not found.exact.first.any()
    assert not found.exact.later.any()
    assert (found.exact.later_raw == 9).all()


def test_what_a_learned_sink_takes_is_a_mean_over_real_queries():
    real = np.broadcast_to(np.arange(SEQ) >= 20, (2, SEQ)).copy()
    flat = block(np.zeros((2, SEQ, 8), np.float32), np.ones((2, 3, SEQ), np.float32), real)
    found = Reader(0.1)(flat._replace(missing=np.full((2, 3), 30, np.float32)))
    np.testing.assert_array_equal(found.missing, np.full((2, 3), 0.5))


def build(kind, **differing):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**(SIZES | differing))
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


@pytest.fixture
def llama():
    return build("Llama")


@pytest.fixture
def ids(generator):
    return torch.randint(3, 97, (PROMPTS, SEQ), generator=generator)


def test_padding_changes_nothing(llama, ids):
    """Left or right, and as one batch: each prompt is surveyed as it is alone."""
    plain = survey(llama, ids)
    for before, after in ((9, 0), (0, 9)):
        wide = torch.nn.functional.pad(ids, (before, after))
        mask = torch.nn.functional.pad(torch.ones_like(ids), (before, after))
        padded = survey(llama, wide, mask)
        assert (padded.shortest, padded.longest) == (SEQ, SEQ)
        for field in ("first", "later", "later_raw", "total_raw", "by_reach_later"):
            assert getattr(padded.sinks, field) == getattr(plain.sinks, field), field
        np.testing.assert_array_equal(padded.sinks.later_grid, plain.sinks.later_grid)
        ours, theirs = (
            [i.mean for i in s.weakening.profile if i is not None] for s in (padded, plain)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
        assert padded.heads.dormant.quiet == plain.heads.dormant.quiet
        assert [r.dims for r in padded.rules] == [r.dims for r in plain.rules]


def test_a_window_is_read_both_ways(ids):
    found = survey(build("Mistral", sliding_window=40), ids).sinks
    assert found.windowed == [0, 1, 2]
    assert survey(build("Mistral", sliding_window=SEQ), ids).sinks.windowed == []


@pytest.mark.parametrize("kind", ["Llama", "Gemma2", "GPT2", "GPTNeoX"])
def test_every_family_has_a_report(kind, ids):
    model = (
        transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=97, n_embd=48, n_layer=3, n_head=6, n_positions=128)
        ).eval()
        if kind == "GPT2"
        else build(kind)
    )
    before = [p.clone() for p in model.parameters()]
    found = survey(model, ids[:2])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert any(rule.reads == "inputs of attention and MLP" for rule in found.rules)
    four = sections(found)
    assert [len(s.tables) for s in four] == [1, bool(found.places), 2, 3]
    assert all(len(row) == len(t.columns) for s in four for t in s.tables for row in t.rows)
    assert '"kind": "Survey"' in dumps(found)


def test_the_inputs_that_are_counted_are_the_normed_ones(llama, ids):
    """By hooks on the norms themselves, in a model whose norms are turned up."""
    for layer in llama.model.layers:
        layer.input_layernorm.weight.data[7] = 20.0
        layer.post_attention_layernorm.weight.data[9] = 20.0
    norms = []
    for layer in llama.model.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.register_forward_hook(lambda _, __, out: norms.append(out))
    real = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad(), survey_projections.watching(llama, real) as seen:
        llama(ids)
    counts = seen.counts()
    assert counts is not None
    expected = np.stack([(x.abs() >= 6).sum(dim=1).numpy() for x in norms], axis=1)
    np.testing.assert_array_equal(counts, expected)
    found = survey(llama, ids)
    rule = next(rule for rule in found.rules if rule.reads.startswith("inputs"))
    assert set(rule.dims) == {7, 9}
    weights = {r.reads: r.dims for r in found.rules if r.reads.startswith("weights")}
    assert set(weights["weights of input_layernorm.weight"]) == {7}
    assert set(weights["weights of post_attention_layernorm.weight"]) == {9}


def test_what_cannot_be_surveyed_is_refused(llama, ids):
    with pytest.raises(BadInput, match="at least two"):
        survey(llama, ids[:1])
    with pytest.raises(BadInput, match="prompt 0 has 63 tokens"):
        survey(llama, ids[:, :63])
    mask = torch.ones_like(ids)
    mask[2, :30] = 0
    with pytest.raises(BadInput, match="prompt 2 has 50 tokens"):
        survey(llama, ids, mask)


def test_a_massive_first_token_is_told_from_a_later_one():
    """Two prompts of which the second starts at token 3: an entry there is its first token's."""
    spell = Spell(0, 3, 5, 1, NEVER, 4, 2e4, 1, 0.9, float("nan"))
    found = massive_found([[spell], [spell]], np.array([0, 3]), 1000.0)
    assert {(kind.at_first, kind.count) for kind in found.kinds} == {(False, 1), (True, 1)}
    assert found.later == over_prompts(np.array([1.0, 0.0]))
