"""The heads' matrices are known by what they do to what a block reads, not by their names."""

import importlib

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from mech.blocks import decoder_blocks
from mech.errors import BadInput
from mech.heads import head_weights

SMALL = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "initializer_range": 0.4,
    "pad_token_id": 0,
}  # fmt: skip
MORE = {
    "olmo2": ("Olmo2", {}),
    "gpt_oss": ("GptOss", {"head_dim": 12, "num_local_experts": 2, "num_experts_per_tok": 1}),
    "qwen2_wide": (
        "Qwen2",
        {"hidden_size": 60, "num_key_value_heads": 3},
    ),
}


def randomised(model):
    """Biases start at zero and gains at one: a weight that is left out would not be missed."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += torch.rand(parameter.shape, generator=generator) - 0.3
    if hasattr(model.config, "num_local_experts"):
        model.set_experts_implementation("eager")  # the fast one knows no float64
    return model.double().eval()


def made(family):
    name, settings = MORE[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SMALL | settings)
    return getattr(transformers, f"{name}ForCausalLM")(config)


def seen(model, tokens):
    """Of every block's attention: module, input, output, and (q, k, v, scaling, z)."""
    calls, modules = [], []

    def recording(module, query, key, value, mask, scaling=None, **kwargs):
        own = importlib.import_module(type(module).__module__).eager_attention_forward
        z, _ = own(module, query, key, value, mask, scaling=scaling, **kwargs)
        calls.append((query, key, value, scaling, z))
        return z, None

    AttentionInterface.register("test_heads", recording)
    AttentionMaskInterface.register("test_heads", eager_mask)
    model.config._attn_implementation = "test_heads"

    def hook(module, args, kwargs, output):
        x = args[0] if args else kwargs["hidden_states"]
        modules.append((module, x, output[0]))

    attentions = [
        next(m for n, m in b.named_children() if n in ("self_attn", "attention", "attn"))
        for b in decoder_blocks(model)
    ]
    handles = [a.register_forward_hook(hook, with_kwargs=True) for a in attentions]
    with torch.no_grad():
        model(tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    return [(*m, *c) for m, c in zip(modules, calls, strict=True)]


def apart(x, weight, bias):
    """x @ W for every head: batch head seq d."""
    found = np.einsum("btm,hmd->bhtd", x, weight)
    return found if bias is None else found + bias[:, None]


def close(found, expected, tolerance=1e-9):
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max(), rtol=0)


def check_values_and_write(model, tokens):
    for layer, (_, x, write, _, _, value, _, z) in enumerate(seen(model, tokens)):
        w = head_weights(model, layer)
        assert w.W_Q.dtype == np.float64
        assert len(w.W_Q) % len(w.W_K) == 0
        close(apart(x.numpy(), w.W_V, w.b_V), value.numpy())
        heads = z.numpy().reshape(*z.shape[:2], len(w.W_O), -1)
        summed = np.einsum("bthd,hdm->btm", heads, w.W_O)
        close(summed if w.b_O is None else summed + w.b_O, write.numpy())


@torch.no_grad()
def check_queries_and_keys(model, tokens, yarn=1.0):
    """Before rotation, which at position 0 is the identity and anywhere keeps every length."""
    for layer, (module, x, _, query, key, _, scaling, _) in enumerate(seen(model, tokens)):
        w = head_weights(model, layer)
        inner = getattr(module, "scaling", scaling) / scaling  # OPT scales its queries itself
        parts = (("q_norm", query, w.W_Q, w.b_Q, inner), ("k_norm", key, w.W_K, w.b_K, 1.0))
        for norm, got, weight, bias, factor in parts:
            raw = apart(x.numpy(), weight, bias) * factor * yarn
            expected = normed(getattr(module, norm, None), torch.from_numpy(raw)).numpy()
            # transformers takes norms of queries, and sines and cosines, in float32.
            exact = 1e-9 if getattr(module, norm, None) is None and yarn == 1 else 1e-6
            close(expected[:, :, 0], got[:, :, 0].numpy(), exact)
            close(np.linalg.norm(expected, axis=-1), got.norm(dim=-1).numpy(), 1e-6)


def normed(norm, heads):
    if norm is None:
        return heads
    width = norm.weight.shape[0]
    if width == heads.shape[-1]:
        return norm(heads)
    flat = heads.transpose(1, 2).flatten(2)  # OLMo 2 norms all heads together
    return norm(flat).view(*flat.shape[:2], heads.shape[1], -1).transpose(1, 2)


def test_values_and_write_of_a_family(tiny, tokens):
    check_values_and_write(randomised(tiny.model), tokens)


def test_queries_and_keys_of_a_family(tiny, tokens):
    model = randomised(tiny.model)
    check_queries_and_keys(model, tokens, yarn_of(model))


@pytest.mark.parametrize("family", MORE)
def test_more_families(family, tokens):
    model = randomised(made(family))
    check_values_and_write(model, tokens)
    check_queries_and_keys(model, tokens, yarn_of(model))


def yarn_of(model):
    rotary = getattr(model.base_model, "rotary_emb", None)
    return getattr(rotary, "attention_scaling", 1.0)


def test_a_model_in_float32_gives_float32(llama):
    assert {a.dtype for a in head_weights(llama.bfloat16(), 0)[:4]} == {np.dtype(np.float32)}


def test_they_are_copies(llama):
    head_weights(llama, 0).W_O[:] = 0
    assert head_weights(llama, 0).W_O.any()


def test_a_folded_norm_reads_the_normalised_stream(tiny):
    """x̂ W with the gain inside = norm(x) W, less the norm's own bias, which stays outside."""
    model = randomised(tiny.model)
    names = ("input_layernorm", "ln_1", "self_attn_layer_norm")
    block = decoder_blocks(model)[1]
    norm = next((getattr(block, name) for name in names if hasattr(block, name)), None)
    if norm is None:  # OLMo 2 has nothing to fold
        plain, folded = head_weights(model, 1), head_weights(model, 1, fold_norm=True)
        return np.testing.assert_array_equal(plain.W_Q, folded.W_Q)
    x = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = (x - x.mean(-1, keepdim=True)) * 1e3  # mean 0: LayerNorm and RMSNorm agree; no epsilon
    unit = x / x.square().mean(-1, keepdim=True).sqrt()
    bias = getattr(norm, "bias", None)
    with torch.no_grad():
        read = norm(x) - (0 if bias is None else bias)
    plain, folded = head_weights(model, 1), head_weights(model, 1, fold_norm=True)
    for name in ("W_Q", "W_K", "W_V"):
        expected = apart(read.numpy(), getattr(plain, name), None)
        found = apart(unit.numpy(), getattr(folded, name), None)
        np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max(), rtol=0)
        if isinstance(norm, nn.LayerNorm):
            assert np.abs(getattr(folded, name).sum(axis=1)).max() < 1e-9


def test_latent_attention_is_refused():
    config = transformers.DeepseekV3Config(
        vocab_size=97, hidden_size=48, intermediate_size=56, num_hidden_layers=2,
        num_attention_heads=6, num_key_value_heads=6, q_lora_rank=8, kv_lora_rank=8,
        qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8, first_k_dense_replace=2,
    )  # fmt: skip
    with pytest.raises(BadInput, match="cannot be told apart") as caught:
        head_weights(transformers.DeepseekV3ForCausalLM(config), 0)
    assert "\n" not in str(caught.value)


def test_another_order_of_fused_columns_is_refused(tokens):
    """Falcon shares one key head, GPT-BigCode interleaves in a linear that is called c_attn."""
    falcon = transformers.FalconConfig(
        vocab_size=97, hidden_size=48, num_hidden_layers=2, num_attention_heads=6
    )
    code = transformers.GPTBigCodeConfig(
        vocab_size=97, n_embd=48, n_layer=2, n_head=6, multi_query=False
    )
    for model in (
        transformers.FalconForCausalLM(falcon),
        transformers.GPTBigCodeForCausalLM(code),
    ):
        with pytest.raises(BadInput, match="cannot be told apart"):
            head_weights(model, 0)


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_that_is_not_there(llama, layer):
    with pytest.raises(BadInput, match="from 0 to 2"):
        head_weights(llama, layer)


class Halved(nn.Module):
    """An affine map with no weight of its own, as a compressed linear is."""

    def __init__(self, linear):
        super().__init__()
        self.inner, self.in_features = linear, linear.in_features

    def forward(self, x):
        return self.inner(x) / 2


def test_an_affine_map_that_is_no_linear_is_read_by_its_action(llama):
    before = head_weights(llama, 0)
    attention = decoder_blocks(llama)[0].get_submodule("self_attn")
    attention.q_proj = Halved(attention.get_submodule("q_proj"))
    np.testing.assert_allclose(head_weights(llama, 0).W_Q, before.W_Q / 2, rtol=1e-6)
