"""Perplexity against a plain restatement, token by token."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.evaluate import TokenLosses, paired, perplexity, summary, token_losses
from mech.errors import BadInput


def plainly(model, ids, context, stride, prefix):
    """Every token with the text that its window shows before it, one at a time, in float64."""
    lead = [] if prefix is None else [prefix]
    room = context - len(lead)
    scored, losses = set(), {}
    begin, number = 0, 0
    while True:
        end = min(begin + room, len(ids))
        for t in range(begin, end):
            before = lead + ids[begin:t].tolist()
            if t in scored or not before:
                continue
            scored.add(t)
            logits = model(torch.tensor([before])).logits[0, -1].double()
            losses[t] = (float(torch.logsumexp(logits, 0) - logits[ids[t]]), number)
        if end == len(ids):
            return losses
        begin, number = begin + stride, number + 1


@pytest.fixture(scope="module")
def model():
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=31,
        hidden_size=12,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    return transformers.LlamaForCausalLM(config).eval()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    length=st.integers(2, 23),
    context=st.integers(3, 12),
    stride=st.integers(1, 12),
    prefix=st.none() | st.integers(0, 30),
    seed=st.integers(0, 99),
)
def test_every_token_is_scored_as_defined(model, length, context, stride, prefix, seed):
    ids = torch.randint(31, (length,), generator=torch.Generator().manual_seed(seed))
    stride = min(stride, context - (prefix is not None))
    with torch.no_grad():
        expected = plainly(model, ids, context, stride, prefix)
    got = token_losses(model, ids, context=context, stride=stride, prefix=prefix)
    assert got.position.tolist() == list(expected)
    assert got.window.tolist() == [window for _, window in expected.values()]
    # float32 logits of a 12-wide model, with and without a longer tail behind the causal mask.
    assert got.nll.tolist() == pytest.approx([nll for nll, _ in expected.values()], abs=1e-4)


def test_overlap_scores_the_tokens_that_window_starts_cannot(model):
    ids = torch.arange(20) % 31
    assert perplexity(model, ids, context=5, stride=5).tokens == 16
    assert perplexity(model, ids, context=5, stride=4).tokens == 19
    assert perplexity(model, ids, context=5, stride=4, prefix=1).tokens == 20


def test_the_result_says_what_it_is(model):
    ids = torch.arange(20) % 31
    result = perplexity(model, ids, context=6, stride=3, prefix=7)
    assert result.ppl == pytest.approx(math.exp(result.nll))
    for part in ("windows of 6 tokens every 3", "starts with id 7", "scored once"):
        assert part in result.definition
    assert "no prefix" in perplexity(model, ids, context=6, stride=3).definition


def losses(values, windows):
    return TokenLosses(
        torch.tensor(values, dtype=torch.float64),
        torch.arange(len(values)),
        torch.tensor(windows),
    )


def test_the_standard_error_is_over_windows():
    """Equal windows: the standard error of their means. Tokens that repeat do not shrink it."""
    few = summary(losses([1.0, 3.0, 2.0], [0, 1, 2]), "")
    many = summary(losses([1.0] * 50 + [3.0] * 50 + [2.0] * 50, [0] * 50 + [1] * 50 + [2] * 50), "")
    assert few.standard_error == pytest.approx(1 / math.sqrt(3))
    assert many.standard_error == pytest.approx(1 / math.sqrt(3))
    assert (many.nll, many.tokens, many.windows) == (2, 150, 3)
    assert math.isnan(summary(losses([1.0, 2.0], [4, 4]), "").standard_error)
    assert summary(losses([800.0, 800.0], [0, 1]), "").ppl == math.inf


def test_pairing_removes_what_texts_share():
    a = losses([1.0, 9.0, 4.0, 6.0], [0, 0, 1, 1])
    b = losses([1.5, 9.5, 4.5, 6.5], [0, 0, 1, 1])
    assert paired(a, b) == (0.5, 0.0, 2)
    with pytest.raises(BadInput, match="different tokens"):
        paired(a, losses([1.0, 9.0, 4.0, 6.0], [0, 0, 0, 1]))


def test_progress_is_told_for_every_window(model):
    seen = []
    perplexity(model, torch.arange(20), context=8, stride=8, advance=seen.append)
    assert seen == [f"window {n} of 3" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("ids", "context", "stride", "prefix", "message"),
    [
        (range(9), 5, 0, None, "stride"),
        (range(9), 5, 6, None, "stride"),
        (range(9), 5, 5, 1, "stride"),
        (range(9), 1, 1, None, "two tokens"),
        (range(9), 33, 5, None, "at most 32"),
        ([3], 5, 5, None, "nothing to predict"),
        ([3, 31], 5, 5, None, "id 31"),
        ([3, 4], 5, 4, 99, "id 99"),
        ([-1, 4], 5, 4, None, "id -1"),
        ([3, 4], 5, 4, -2, "id -2"),
    ],
)
def test_refuses_what_has_no_meaning(model, ids, context, stride, prefix, message):
    with pytest.raises(BadInput, match=message):
        perplexity(model, torch.tensor(list(ids)), context=context, stride=stride, prefix=prefix)


def test_dropout_is_off_and_the_mode_comes_back(model):
    ids = torch.arange(9)
    expected = perplexity(model, ids, context=5, stride=5)
    model.model.layers[0].self_attn.attention_dropout = 0.9
    model.train()
    try:
        assert perplexity(model, ids, context=5, stride=5) == expected
        assert model.training
    finally:
        model.eval()
        model.model.layers[0].self_attn.attention_dropout = 0.0


def test_a_loss_that_is_no_number_is_refused(model):
    weight = model.model.norm.weight.data
    kept = weight.clone()
    try:
        weight[0] = float("nan")
        with pytest.raises(BadInput, match="window 0"):
            perplexity(model, torch.arange(9), context=5, stride=5)
    finally:
        weight.copy_(kept)
