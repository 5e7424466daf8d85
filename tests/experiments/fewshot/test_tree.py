"""What prompts share is computed once, and the answers are those of whole prompts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.fewshot import tree
from experiments.fewshot.tree import Row, greedily, scored
from mech.errors import BadInput


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    settings = LlamaConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=11,
        max_position_embeddings=90,
    )
    return LlamaForCausalLM(settings).double().eval()


def by_hand(model, row):
    with torch.no_grad():
        logp = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
    at = range(row.known, len(row.ids))
    return sum(float(logp[t - 1, row.ids[t]]) for t in at)


def rows_that_share(draw, count):
    """Rows that leave their common beginning late, soon or never, in any order."""
    rows = []
    stem = draw.integers(0, 11, 60).tolist()
    for _ in range(count):
        kept = int(draw.integers(0, 61))
        end = draw.integers(0, 3, int(draw.integers(2 if kept == 0 else 1, 9))).tolist()
        ids = (*stem[:kept], *end)
        rows.append(Row(ids, int(draw.integers(max(1, kept - 2), len(ids)))))
    return rows


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 14))
def test_scores_are_those_of_whole_rows(llama, seed, count):
    rows = rows_that_share(np.random.default_rng(seed), count)
    wanted = [by_hand(llama, row) for row in rows]
    advanced = []
    found = scored(llama, rows, advanced.append)
    assert [one.logp for one in found] == pytest.approx(wanted, abs=1e-9)
    assert len(advanced) == count
    each = scored(llama, rows, whole=True)
    assert [one.logp for one in each] == pytest.approx(wanted, abs=1e-9)
    assert [one.greedy for one in each] == [one.greedy for one in found]


def test_small_batches_change_nothing(llama, monkeypatch):
    rows = rows_that_share(np.random.default_rng(1), 30)
    wanted = [one.logp for one in scored(llama, rows)]
    monkeypatch.setattr(tree, "BATCH", 20)
    monkeypatch.setattr(tree, "HELD", 90)
    assert [one.logp for one in scored(llama, rows)] == pytest.approx(wanted, abs=1e-9)


def test_a_shared_beginning_is_run_once(llama, monkeypatch):
    run = []
    plain = tree._logits

    def counted(model, ids, cache, keep):
        run.append(ids.numel())
        return plain(model, ids, cache, keep)

    monkeypatch.setattr(tree, "_logits", counted)
    stem = tuple(np.random.default_rng(0).integers(0, 11, 70).tolist())
    # Five items of three choices with a token each: after the stem, one input of 4 an item.
    rows = [Row((*stem, i, i, i, i, c), 74) for i in range(5) for c in range(3)]
    scored(llama, rows)
    assert sum(run) == 70 + 5 * 4


def test_greedy_is_whether_every_scored_token_was_the_likeliest(llama):
    ids = [3, 1]
    said = list(greedily(llama, torch.tensor(ids), 6))
    row = Row((*ids, *said), 2)
    assert scored(llama, [row])[0].greedy
    other = Row((*ids, *said[:-1], (said[-1] + 1) % 11), 2)
    assert not scored(llama, [other])[0].greedy
    with torch.no_grad():
        for t, token in enumerate(said):
            logits = llama(torch.tensor([[*ids, *said[:t]]])).logits[0, -1]
            assert int(logits.argmax()) == token


def test_a_prompt_longer_than_the_model_is_refused(llama):
    with pytest.raises(BadInput, match="91 tokens"):
        scored(llama, [Row((1,) * 91, 1)])
    with pytest.raises(BadInput, match="fewer"):
        list(greedily(llama, torch.tensor([1] * 80), 11))
