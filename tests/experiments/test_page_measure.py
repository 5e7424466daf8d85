"""What the page is made of: read from tiny models, and compared with what defines it."""

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from experiments.probing import page, page_read, page_tags
from experiments.probing.page_tags import ALL, Tag
from mech.capture import capture
from mech.causal import intervene
from mech.edits import RandomDirection, Remove, Where
from mech.errors import BadInput
from mech.load import Loaded

D_VOCAB, SEQ = 97, 23
SIZES = {
    "vocab_size": D_VOCAB,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "initializer_range": 0.4,
    "max_position_embeddings": 512,
}
FAMILIES = {
    "Llama": SIZES,
    "Gemma2": SIZES | {"head_dim": 12, "sliding_window": 8, "attn_logit_softcapping": 2.0},
    "GPTNeoX": {k: v for k, v in SIZES.items() if k != "num_key_value_heads"},
}


def loaded(family: str) -> Loaded:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family])
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    words = WordLevel({f"w{i}": i for i in range(D_VOCAB)}, unk_token="w0")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words))
    return Loaded(model, tokenizer, f"tiny {family}", "memory", "0")


@pytest.fixture
def ids(generator):
    return torch.randint(0, D_VOCAB, (SEQ,), generator=generator)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_the_trace_has(family, ids):
    source = loaded(family)
    seen = page.measure(source, ids, 0.1, "a note")
    trace = capture(source.model, ids[None])
    np.testing.assert_allclose(seen.pattern, trace.pattern[:, 0], atol=1e-6)
    np.testing.assert_allclose(seen.norm, np.linalg.norm(trace.resid[:, 0], axis=-1), rtol=1e-5)
    np.testing.assert_allclose(seen.peak, _peaks(trace.resid[:, 0]), rtol=1e-5)
    reach = np.count_nonzero(seen.pattern.sum(axis=1) > 0, axis=1)
    alpha = seen.pattern.sum(axis=2) / reach[:, None]
    np.testing.assert_allclose(seen.alpha, alpha, atol=1e-6)
    visible = np.count_nonzero(seen.pattern[:, 0] > 0, axis=-1)
    uniform = ((seen.pattern[:, 0] > 0) / visible[..., None]).sum(axis=1) / reach
    np.testing.assert_allclose(seen.null, uniform, atol=1e-9)
    assert not seen.sinks[..., SEQ - page.TAIL :].any()
    inside = slice(SEQ - page.TAIL)
    np.testing.assert_array_equal(seen.sinks[..., inside], seen.alpha[..., inside] > 0.1)
    assert seen.tokens == [f"w{i}" for i in ids.tolist()]
    assert len(seen.tags.token) == 12
    assert page.page(seen).count("<script") == 2


def _peaks(resid: np.ndarray) -> np.ndarray:
    flat = resid.reshape(-1, resid.shape[-1])
    return np.array([row[np.abs(row).argmax()] for row in flat]).reshape(resid.shape[:2])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shares_of_the_keys_sum_to_one(family, ids):
    seen = page.measure(loaded(family), ids, tags=1)
    np.testing.assert_allclose(seen.share.sum(axis=-1), 1, atol=1e-5)
    assert seen.share.min() < 0.3 < seen.share.max()


def test_a_share_is_what_its_key_writes():
    """Two keys with orthogonal values: the shares are those of the squared norms they write."""
    pattern = np.array([[[1.0, 0.0], [0.25, 0.75]]])
    value = np.array([[[2.0, 0.0], [0.0, 1.0]]])
    W_O = np.array([[[3.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    share = page_read.shares_of_keys(pattern, value, pattern @ value, W_O)
    first, second = 36 + 0.25**2 * 36, 0.75**2
    np.testing.assert_allclose(share[0], np.array([first, second]) / (first + second))


@pytest.mark.parametrize(("layer", "head"), [(0, 2), (1, ALL)])
def test_readers_are_measured_one_by_one_too(ids, layer, head):
    model = loaded("Llama").model
    z = capture(model, ids[None]).z[:, 0]
    others = [Tag(0, 5, 1), Tag(1, 0, 7), Tag(0, ALL, 0), Tag(0, 1, 2), Tag(1, 3, 9)]
    tags = page_tags.measured(model, ids, z, [*others, Tag(layer, head, 4)])
    heads = None if head == ALL else (head,)
    where = Where((layer,), ((4,),), heads)
    for edit, found in ((Remove(where), tags.changed), (None, tags.control)):
        with intervene(model, edit or RandomDirection(where, added=True)) as edited:
            moved = capture(edited, ids[None]).z[:, 0]
        wanted = np.linalg.norm((moved - z)[..., 5:, :], axis=(-1, -2))
        wanted /= np.linalg.norm(z[..., 5:, :], axis=(-1, -2))
        wanted[: layer + 1] = 0
        np.testing.assert_allclose(found[-1], wanted, atol=1e-5)
        assert wanted[layer + 1 :].min() > 1e-4
    assert tags.changed[-1].tolist() != tags.control[-1].tolist()


def test_the_strongest_tags_come_first():
    excess, found = np.zeros((3, 2, 5)), np.zeros((3, 2, 5), dtype=bool)
    for layer, head, token, alpha in (
        (0, 0, 2, 0.3),
        (0, 1, 2, 0.2),
        (1, 0, 2, 0.4),
        (1, 1, 0, 0.5),
        (2, 1, 0, 0.9),
        (0, 0, 4, 0.9),
    ):
        excess[layer, head, token] = alpha
        found[layer, head, token] = True
    excess[1, 1, 3] = 1.0  # not a sink
    excess[0, 1, 1], found[0, 1, 1] = -0.1, True  # less than uniform attention gives
    wanted = [Tag(0, ALL, 2), Tag(1, ALL, 0), Tag(1, 0, 2), Tag(1, 1, 0), Tag(0, 0, 2)]
    assert page_tags.strongest(excess, found, 5) == wanted
    assert page_tags.strongest(excess, found, 99) == [*wanted, Tag(0, 1, 2)]
    assert page_tags.strongest(excess, found & False, 5) == []


def test_massive_tokens_have_no_part_in_the_colours():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(9, 7))
    without = np.zeros(9, dtype=bool)
    without[3] = True
    colour, share = page_read.coloured(vectors, without)
    assert (colour[[0, 3]] == 0.5).all()
    assert 0.5 < share <= 1
    spoiled = vectors.copy()
    spoiled[[0, 3]] *= 1e6
    np.testing.assert_allclose(page_read.coloured(spoiled, without)[0], colour)
    for few in (1, 2, 3):
        colour, share = page_read.coloured(vectors[:few], without[:few])
        assert (colour == 0.5).all()
        assert share == 0


@pytest.mark.parametrize("seq", [2, 3])
def test_the_shortest_prompts(seq, ids):
    seen = page.measure(loaded("Llama"), ids[:seq])
    assert seen.pattern.shape[-1] == seq
    assert page.page(seen)


def test_what_a_page_cannot_hold_is_refused(ids, monkeypatch):
    source = loaded("Llama")
    with pytest.raises(BadInput, match="two tokens at least, not 1"):
        page.measure(source, ids[:1])
    monkeypatch.setattr(page, "ENTRIES", 18 * 10 * 11 // 2)
    assert page.measure(source, ids[:10], tags=1).pattern.shape[-1] == 10
    with pytest.raises(BadInput, match="at most 10 tokens"):
        page.measure(source, ids[:11])
