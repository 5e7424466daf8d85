"""The page of whole components, on a tiny model: every variant, at the budget it says."""

import json

import pytest
import torch
from command import expect_refused
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.components import Config

WORDS = ["<unk>", "<s>", *(f"w{i}" for i in range(60)), "the", "of", "a", "and", "is"]
SMALL = ("--windows", 2, "--context", 32, "--sequences", 2, "--seq", 64, "--calibration", 2)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(WORDS),
        max_position_embeddings=512,
        bos_token_id=1,
    )
    made = LlamaForCausalLM(config)
    # Heads without preference: all alike, and each a sink head at a threshold below its 1/64 H.
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "q_proj" in name:
                weight.mul_(0.01)
    made.save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    return folder


def test_every_variant_is_measured_at_its_budget(here, model, tmp_path):
    # Without preference a head of 64 tokens gives its first one about 0.07.
    done = here(
        *("experiment", "components", model, *SMALL, "--out", "run"),
        *("--compressions", 0.25, "--columns", 4, "--epsilon", 0.05),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())["result"]
    assert [layer["layer"] for layer in result["errors"]] == [0, 1, 2]
    found = result["found"]
    # Dense; A3 and four controls; three parts; four choices of layers by three choices of columns.
    assert len(found) == 1 + 5 + 3 + 12
    dense = found.pop("dense")
    assert (dense["density"], dense["nll"]["mean"]) == (1, 0)
    budget = {name: left["density"] for name, left in found.items() if "25% removed" in name}
    assert max(budget.values()) == 0.75
    assert min(budget.values()) > 0.7
    assert result["chosen"] == {"query": 12, "key": 6, "queries": 12, "keys": 6}
    pruned = [left["density"] for name, left in found.items() if "sink heads" in name]
    assert pruned == [4 / 32] * 12
    page = (tmp_path / "run" / "report.html").read_text()
    assert "A3 costs" in page
    assert "heads keep a first-token sink" in page


@pytest.mark.parametrize(
    ("options", "word"),
    [(("--columns", 0), "columns"), (("--compressions", 1), "compressions")],
)
def test_options_that_are_none_are_refused_in_a_line(here, model, options, word):
    expect_refused(here("experiment", "components", model, *options), word)


def test_the_default_asks_everything():
    assert Config().questions == ("scores", "a3", "sinks")
