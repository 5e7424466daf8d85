"""Every family that is read: compressed, saved, reloaded, run; nothing left dense in silence."""

import hashlib
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM

from bridge.checkpoint import content_hash, save_dense
from bridge.compress import compress
from bridge.compression import restore
from bridge.methods.magnitude import Magnitude
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda
from bridge.opened import Experts, closed, shown
from bridge.operators import Affine, Sparse, Stack
from bridge.shards import Shards
from bridge.sites import linears, operators, show
from bridge.statistics import Count, diagonal_moment
from bridge.stream import hooked
from mech.blocks import decoder_blocks
from mech.errors import BadInput
from mech.quiet import quiet

SIZES = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "initializer_range": 0.2,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WINDOWS = {"head_dim": 12, "sliding_window": 8, "query_pre_attn_scalar": 5}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
# family -> (configuration class, what differs, linears a block)
FAMILIES: dict[str, tuple[str, dict[str, Any], int]] = {
    "Llama": ("", {}, 7),
    "Qwen2": ("", {}, 7),
    "Qwen3": ("", {"head_dim": 12}, 7),
    "Mistral": ("", {"sliding_window": 8}, 7),
    "Gemma2": ("", WINDOWS | {"attn_logit_softcapping": 2.0}, 7),
    "Gemma3": ("Gemma3Text", WINDOWS, 7),
    "Phi3": ("", {}, 4),
    "GPTNeoX": ("", {"num_key_value_heads": 6}, 4),
    "OPT": ("", {"ffn_dim": 56, "word_embed_proj_dim": 48, "init_std": 0.2}, 6),
    "GPT2": ("", {"n_positions": 64, "num_key_value_heads": 6}, 4),
    "Olmo2": ("", {}, 7),
    "Cohere": ("", {}, 7),
    "Granite": ("", {"residual_multiplier": 0.22, "attention_multiplier": 0.3}, 7),
    "GptOss": (
        "", WINDOWS | {"num_local_experts": 3, "num_experts_per_tok": 2,
                       "max_position_embeddings": 8192}, 4 + 3 * 2),
    "Llama4": (
        "Llama4Text", {"head_dim": 8, "attention_chunk_size": 8, "num_local_experts": 3,
                       "num_experts_per_tok": 1, "intermediate_size_mlp": 56}, 7 + 3 * 2),
    "Mixtral": ("", {"num_local_experts": 3, "num_experts_per_tok": 2}, 4 + 3 * 2),
    "Qwen2Moe": ("", EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 24},
                 7 + 4 * 2),
    "Qwen3Moe": ("", EXPERTS | {"num_experts": 4}, 4 + 4 * 2),
    "DeepseekV3": (
        "", EXPERTS | {"num_key_value_heads": 6, "kv_lora_rank": 16, "q_lora_rank": 24,
                       "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 10,
                       "n_routed_experts": 4, "n_group": 2, "topk_group": 1,
                       "first_k_dense_replace": 0}, 5 + 3 + 4 * 2),
}  # fmt: skip
ROUTERS = {
    "GptOss": "mlp.router", "Llama4": "feed_forward.router", "Mixtral": "mlp.gate",
    "Qwen2Moe": "mlp.gate", "Qwen3Moe": "mlp.gate", "DeepseekV3": "mlp.gate",
}  # fmt: skip
MIXTURES = tuple(ROUTERS)


def build(family: str) -> Any:
    config, differing, _ = FAMILIES[family]
    kind = getattr(transformers, f"{config or family}Config")
    suffix = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    torch.manual_seed(0)
    with quiet():
        model = getattr(transformers, family + suffix)(kind(**SIZES | differing)).eval()
    # Biases, gains and sinks differ from their start, so that one that is lost is missed.
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def batches(generator):
    return [torch.randint(3, 97, (4, 21), generator=generator) for _ in range(2)]


@torch.no_grad()
def logits(model, batches):
    return model(batches[0], use_cache=False).logits


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("method", [Wanda(), OATS(iterations=2)], ids=["wanda", "oats"])
def test_is_compressed_saved_reloaded_and_run(family, method, batches, tmp_path):
    model = build(family)
    dense, before = logits(model, batches), content_hash(model)
    done = compress(model, method, batches)
    assert len(done.rows) == 2 * FAMILIES[family][2]
    assert all(0 < row.cost.density < 1 for row in done.rows)
    expected = logits(model, batches)
    assert not torch.equal(expected, dense)
    folder = save_dense(model, None, tmp_path / "model", {})
    with quiet():
        again = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    assert type(again) is type(model)
    # S + L is one matrix there and two products here, and experts are added in another order.
    torch.testing.assert_close(logits(again, batches), expected, rtol=1e-4, atol=1e-4)
    folded = linears(again)
    for name, operator in operators(model).items():
        term: Any = operator.term if isinstance(operator, Affine) else operator
        assert torch.equal(folded[name].weight, term.dense()), name
    restore(model, done)
    assert content_hash(model) == before
    assert torch.equal(logits(model, batches), dense)


def test_what_is_no_linear_of_a_block_is_untouched(family, batches):
    """Embeddings, heads (tied or not), norms, routers and learned sinks, by hash."""
    model = build(family)
    inside = {name: linear for name, linear in linears(model).items()}
    ours = {id(p) for m in model.modules() if shown(m) is not None for p in m.parameters()}
    ours |= {id(p) for linear in inside.values() for p in linear.parameters()}
    kept = {n: p for n, p in model.named_parameters(remove_duplicate=False) if id(p) not in ours}
    before = {name: digest(parameter) for name, parameter in kept.items()}
    assert any("embed" in name or "wte" in name for name in before)
    if family == "GptOss":
        assert sum(name.endswith(".sinks") for name in before) == 2
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head.weight is embedding.weight
    done = compress(model, Wanda(), batches)
    after = dict(model.named_parameters(remove_duplicate=False))
    assert {name: digest(after[name]) for name in before} == before
    assert isinstance(head, nn.Linear)
    assert model.get_output_embeddings() is head
    assert (head.weight is embedding.weight) == tied
    wanted = [f"layers.{i}.{ROUTERS[family]}" for i in range(2)] if family in ROUTERS else []
    if family == "Qwen2Moe":
        wanted = [f"layers.{i}.mlp.{g}" for i in range(2) for g in ("gate", "shared_expert_gate")]
    assert list(done.left) == wanted


@pytest.mark.parametrize("name", ["GPT2", *MIXTURES])
def test_a_view_is_the_family_itself(name, batches):
    model = build(name)
    expected, before = logits(model, batches), content_hash(model)
    chosen = linears(model)
    stood = show(model, chosen)
    assert stood
    assert linears(model).keys() == chosen.keys()
    torch.testing.assert_close(logits(model, batches), expected, rtol=1e-6, atol=1e-6)
    with closed(model):
        assert content_hash(model) == before
        assert torch.equal(logits(model, batches), expected)
    assert linears(model).keys() == chosen.keys()


@pytest.mark.parametrize("name", MIXTURES)
def test_an_expert_is_compressed_by_the_tokens_that_were_sent_to_it(name, batches):
    """The dense block's experts, each with the moment of its own rows, against one at a time."""
    model = build(name)
    first = "feed_forward" if name == "Llama4" else "mlp"
    target = f"layers.0.{first}.experts.1.gate_up_proj"
    weight = linears(model)[target].weight.detach().clone()
    stood = show(model, [target])
    experts: Any = decoder_blocks(model)[0].get_submodule(f"{first}.experts")
    assert isinstance(experts, Experts)
    rows: list[torch.Tensor] = []
    expert: Any = experts[1]
    linear = expert["gate_up_proj"]
    with hooked([(linear, "pre", lambda _, args, __: rows.append(args[0]))]), torch.no_grad():
        for tokens in batches:
            model(tokens)
    decoder_blocks(model).set_submodule(f"0.{first}.experts", stood[f"layers.0.{first}.experts"])
    seen = diagonal_moment.update(diagonal_moment.init(48), torch.cat(rows))
    assert 0 < seen.tokens < sum(tokens.numel() for tokens in batches)
    compress(model, Wanda(), batches, select=f"layers.0.{first}.experts.*")
    term: Any = operators(model)[target]
    term = term.term if isinstance(term, Affine) else term
    assert torch.equal(term.dense(), Wanda()(weight, seen).dense())


def test_an_expert_that_no_token_reached_is_named(batches):
    model = build("Mixtral")
    with torch.no_grad():
        # Its router likes the others better, whatever it reads.
        gate: Any = decoder_blocks(model)[1].get_submodule("mlp.gate")
        gate.register_forward_hook(lambda _, __, out: (out[0], out[1], out[2].clamp(max=1)))
    with pytest.raises(BadInput, match=r"layers\.1\.mlp\.experts\.2\..*no calibration token"):
        compress(model, Wanda(), batches)
    assert not operators(model)
    assert not any(isinstance(module, Experts) for module in model.modules())
    done = compress(model, Wanda(), batches, select="*.self_attn.*")
    assert len(done.rows) == 8


def test_a_selection_opens_what_it_names_and_nothing_else(batches):
    model = build("Mixtral")
    done = compress(model, Magnitude(), batches, select="layers.1.mlp.experts.0.*")
    assert [row.name for row in done.rows] == [
        f"layers.1.mlp.experts.0.{name}" for name in ("gate_up_proj", "down_proj")
    ]
    assert [isinstance(b.get_submodule("mlp.experts"), Experts) for b in decoder_blocks(model)] == [
        False, True
    ]  # fmt: skip


def test_a_stack_of_another_kind_is_refused_by_name(batches):
    class OtherExperts(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 48, 48))

        def forward(self, x):
            return x @ self.weight.mean(0)

    model = build("Llama")
    decoder_blocks(model)[1].mlp = OtherExperts()
    with pytest.raises(BadInput, match=r"layers\.1\.mlp is a OtherExperts, a stack of experts"):
        compress(model, Wanda(), batches)
    done = compress(model, Wanda(), batches, select="*.self_attn.*")
    assert len(done.rows) == 8


def test_gpt2_has_its_queries_keys_and_values_apart(batches):
    model = build("GPT2")
    weight = linears(model)["layers.0.attn.c_attn"].weight.clone()
    compress(model, Magnitude(), batches)
    operator: Any = decoder_blocks(model)[0].get_submodule("attn.c_attn")
    assert isinstance(operator, Affine)
    assert isinstance(operator.term, Stack)
    parts = [Magnitude()(part, Count(168)).dense() for part in weight.split(48)]
    assert torch.equal(operator.term.dense(), torch.cat(parts))
    assert isinstance(decoder_blocks(model)[0].get_submodule("mlp.c_fc.term"), Sparse)


@pytest.mark.parametrize("name", ["GPT2", "Mixtral", "Llama4", "GptOss"])
def test_a_run_that_stopped_goes_on(name, batches, tmp_path):
    """Views are laid out by columns, what is read back by rows: the bits are the same."""
    model = build(name)
    done = compress(model, OATS(iterations=2), batches)
    expected = content_hash(model)
    restore(model, done)
    for _ in range(2):
        done = compress(model, OATS(iterations=2), batches, shards=Shards(tmp_path))
        assert content_hash(model) == expected
        restore(model, done)
        (tmp_path / "block-00001.safetensors").unlink()
