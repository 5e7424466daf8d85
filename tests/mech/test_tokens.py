import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mech.errors import BadInput
from mech.tokens import Encoded, encode, windows

WORDS = {"<s>": 0, "</s>": 1, "a": 2, "b": 3, "c": 4}


def tokenizer(*, bos: str | None = "<s>", adds=False):
    """Words apart by blanks; `adds` makes the tokenizer put BOS and EOS around a text by itself."""
    core = Tokenizer(models.WordLevel(WORDS, unk_token="c"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=bos, eos_token="</s>")


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize(
    ("text", "policy", "ids", "bos", "decision"),
    [
        ("a b", "auto", [0, 2, 3], True, "prepended <s> (id 0)"),
        ("<s> a b", "auto", [0, 2, 3], True, "the text begins with <s> (id 0)"),
        ("<s> <s> a", "auto", [0, 2], True, "the text begins with <s> (id 0)"),
        ("a b", "require", [0, 2, 3], True, "prepended <s> (id 0)"),
        ("a b", "never", [2, 3], False, "left out <s> (id 0)"),
        ("<s> a b", "never", [2, 3], False, "removed <s> (id 0)"),
    ],
)
def test_bos_is_there_once_or_not_at_all(adds, text, policy, ids, bos, decision):
    found = encode(tokenizer(adds=adds), text, bos=policy)
    assert (found.ids.tolist(), found.bos, found.decision) == (ids, bos, decision)


def test_a_tokenizer_without_bos():
    without = tokenizer(bos=None)
    for policy in ("auto", "never"):
        found = encode(without, "a b", bos=policy)
        assert (found.ids.tolist(), found.bos) == ([2, 3], False)
        assert found.decision == "none: the tokenizer has no BOS"
    with pytest.raises(BadInput, match="has no BOS token"):
        encode(without, "a b", bos="require")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text_is_refused(text):
    with pytest.raises(BadInput, match="text is empty"):
        encode(tokenizer(), text)


def test_nothing_but_bos_is_refused_without_it():
    with pytest.raises(BadInput, match="nothing but <s>"):
        encode(tokenizer(), "<s>", bos="never")


@given(
    text=st.integers(1, 60),
    seq=st.integers(1, 12),
    bos=st.booleans(),
    count=st.none() | st.integers(1, 6),
)
def test_windows_are_the_text_in_order_once(text, seq, bos, count):
    ids = torch.arange(100, 100 + text)
    encoded = Encoded(torch.cat([torch.tensor([7]), ids]) if bos else ids, bos, "")
    width = seq - bos
    if width < 1 or (count or 1) * width > text:
        with pytest.raises(BadInput):
            windows(encoded, seq, count)
        return
    found = windows(encoded, seq, count)
    assert found.shape == (count if count is not None else text // width, seq)
    assert not bos or (found[:, 0] == 7).all()
    body = found[:, int(bos) :].reshape(-1)
    assert torch.equal(body, ids[: len(body)])


def test_a_short_text_says_how_much_is_missing():
    encoded = Encoded(torch.arange(10), True, "")
    with pytest.raises(BadInput, match="has 9 tokens and 2 windows of 6 need 10"):
        windows(encoded, 6, 2)


@pytest.mark.model
def test_the_demo_tokenizer_does_not_add_its_bos_and_we_do(demo):
    assert demo.tokenizer("The capital").input_ids[0] != 1
    found = encode(demo.tokenizer, "The capital")
    assert found.ids[0] == 1
    assert found.decision == "prepended <|im_start|> (id 1)"
    twice = encode(demo.tokenizer, "<|im_start|>The capital")
    assert torch.equal(twice.ids, found.ids)
