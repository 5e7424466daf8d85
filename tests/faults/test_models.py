"""What families do differently, where name lists and shape assumptions go wrong in silence."""

import json

import numpy as np
import pytest
import torch
import transformers
from command import SMALL, expect_refused
from tokenizers import Tokenizer, processors
from torch import nn

from bridge.checkpoint import save
from bridge.compress import compress
from bridge.edit import edit_weight
from bridge.methods import METHODS
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda
from bridge.operators import Stack, Sum
from bridge.sites import linears, operators
from experiments.measure import block_score
from mech.blocks import decoder_blocks, unwrap
from mech.capture import capture, capture_blocks
from mech.errors import BadInput

SIZES = {
    "vocab_size": 97, "hidden_size": 36, "intermediate_size": 52, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3,
}  # fmt: skip


def tiny(family: str, **more):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**(SIZES | more))
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


@pytest.fixture
def tokens(generator):
    return torch.randint(3, 97, (2, 21), generator=generator)


def inputs_of(here, tmp_path, *arguments) -> dict:
    done = here("compress", *arguments, *SMALL, "--method", "magnitude")
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "out" / "compress" / "result.json").read_text())["inputs"]


def test_no_bos(here, model, tmp_path):
    """Which token comes first is decided and stored; a tokenizer without BOS is told."""
    told = inputs_of(here, tmp_path, model, "--bos", "never")
    assert told["bos"] == "left out <s> (id 1)"
    assert told["first_ids"][0] != 1
    folder = tmp_path / "without"
    folder.mkdir()
    for source in model.iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    for file in folder.glob("*token*.json"):
        said = json.loads(file.read_text())
        if said.pop("bos_token", None):
            file.write_text(json.dumps(said))
    expect_refused(
        here("compress", folder, "--bos", "require", "--out", "b"), "has no BOS token", "auto"
    )


def test_double_bos(here, model, tmp_path):
    """A tokenizer that adds BOS, and a text that begins with it: there is still one."""
    core = Tokenizer.from_file(str(model / "tokenizer.json"))
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    folder = tmp_path / "adds"
    folder.mkdir()
    for source in model.iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    core.save(str(folder / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("<s> " + "the of a and is " * 400)
    told = inputs_of(here, tmp_path, folder, "--text", tmp_path / "a.txt")
    assert told["first_ids"][0] == 1
    assert 1 not in told["first_ids"][1:]


def test_sdpa_and_attentions(tokens):
    """transformers returns no attention under SDPA; what is read is what eager returns."""
    fast, eager = tiny("Llama", attn_implementation="sdpa"), tiny("Llama")
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        expected = eager(tokens, output_attentions=True).attentions
    found = capture(fast, tokens)
    assert fast.config._attn_implementation == "sdpa"
    assert len(expected) == len(found.pattern) == 2
    for ours, theirs in zip(found.pattern, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_sliding_window(generator):
    """A key counts by the queries that can reach it: behind a window, not by all of them."""
    tokens = torch.randint(3, 97, (1, 128), generator=generator)
    wide, narrow = tiny("Mistral", sliding_window=None), tiny("Mistral", sliding_window=96)
    reach = [block.reach for block in map(_kept, (wide, narrow), (tokens, tokens))]
    assert int(reach[0][0, 0]) == 128
    assert int(reach[1][0, 0]) == 96
    score = np.stack(capture_blocks(narrow, tokens, block_score))
    received = np.stack(capture_blocks(narrow, tokens, lambda block: block.received))
    first = received[..., 0] / 96
    np.testing.assert_allclose(score[..., 0], first, rtol=1e-5)
    assert (score[..., 0] > received[..., 0] / 128).all()


def _kept(model, tokens):
    return capture_blocks(model, tokens, lambda block: block)[0]


@pytest.mark.parametrize("name", METHODS)
def test_gqa(name, tokens):
    """Heads share keys: every method compresses it, and statistics are of query heads."""
    model = tiny("Llama")
    shapes = {n: tuple(linear.weight.shape) for n, linear in linears(model).items()}
    assert shapes["layers.0.self_attn.q_proj"] != shapes["layers.0.self_attn.k_proj"]
    assert _kept(model, tokens).received.shape[1] == 6
    try:
        method = METHODS[name]()
    except TypeError:  # asks for heads, or for another method
        pytest.skip(f"{name} is not made without arguments")
    compress(model, method, [tokens])
    assert operators(model)
    with torch.no_grad():
        assert bool(model(tokens).logits.isfinite().all())


def test_learned_sinks(tokens):
    """Rows of gpt-oss do not sum to one: what is missing went to the sink, and has its place."""
    model = tiny(
        "GptOss", initializer_range=0.02, head_dim=12, sliding_window=8, num_local_experts=3,
        num_experts_per_tok=2, max_position_embeddings=8192,
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.endswith(".sinks"):
            nn.init.constant_(parameter, 1.5)
    pattern = capture(model, tokens).pattern
    missing = np.stack(capture_blocks(model, tokens, lambda block: block.missing))
    assert pattern.sum(-1).max() < 0.99
    np.testing.assert_allclose(21 - pattern.sum((-1, -2)), missing, atol=1e-4)


def test_fused_projections(tokens):
    """Phi-3's q, k and v in one matrix, its gate and up in another: found without a list of
    names, and OATS takes queries, keys and values apart."""
    model = tiny("Phi3")
    assert {name.rpartition(".")[2] for name in linears(model)} == {
        "qkv_proj", "o_proj", "gate_up_proj", "down_proj",
    }  # fmt: skip
    done = compress(model, OATS(iterations=2), [tokens])
    assert done.left == ()
    fused = operators(model)["layers.0.self_attn.qkv_proj"]
    assert isinstance(fused, Stack)
    assert [part.shape for part in fused.each()] == [(36, 36), (12, 36), (12, 36)]
    assert all(isinstance(part, Sum) for part in fused.each())


def test_decoder_layer_returns_a_tensor(tokens):
    """`[0]` would take the first sequence of the batch."""
    model = tiny("Llama")
    block, found = decoder_blocks(model)[0], []
    handle = block.register_forward_hook(lambda _, __, output: found.append(output))
    with torch.no_grad():
        model(tokens)
    handle.remove()
    assert isinstance(found[0], torch.Tensor)
    assert unwrap(found[0]).shape == unwrap((found[0], None)).shape == (2, 21, 36)
    assert _kept(model, tokens).resid_post.shape == (2, 21, 36)


def test_tied_embeddings(tokens, tmp_path):
    """The head is the embedding: neither is compressed, neither is edited alone, and what is
    saved is tied again."""
    model = tiny("Llama", tie_word_embeddings=True)
    embedding = model.get_input_embeddings().weight
    assert model.lm_head.weight is embedding
    before = embedding.detach().clone()
    compress(model, Wanda(), [tokens])
    assert torch.equal(embedding, before)
    with pytest.raises(BadInput, match="both would change; untie them first"):
        edit_weight(model, "lm_head.weight", torch.zeros_like(before))
    assert torch.equal(embedding, before)
    folder = save(model, None, tmp_path / "tied", {})
    again = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert again.lm_head.weight is again.get_input_embeddings().weight
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, model(tokens).logits)


def test_an_untied_head_is_not_saved_as_tied(tokens, tmp_path):
    """The configuration still says that it is tied: what is loaded again is compared with what
    was in memory before the folder gets its name."""
    model = tiny("Llama", tie_word_embeddings=True)
    model.lm_head.weight = nn.Parameter(torch.ones_like(model.lm_head.weight))
    compress(model, Wanda(), [tokens])
    with torch.no_grad():
        expected = model(tokens).logits
    folder = save(model, None, tmp_path / "untied", {})
    again = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, expected)
