"""A3 through the driver: what is lost, which pairs a family rotates, what is refused."""

import sys

import pytest
import torch
import transformers

from bridge.component import _rotary, components
from bridge.compress import compressed
from bridge.method import ComponentMethod, Method
from bridge.methods import method
from bridge.methods.a3 import A3
from bridge.operators import Affine
from mech.errors import BadInput

SIZES = {
    "vocab_size": 97,
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def tiny(family: str, **more):
    config = getattr(transformers, f"{family}Config")(**(SIZES | more))
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval().double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise, alpha=0.3 if parameter.dim() == 1 else 0.1)
    return model


FAMILIES = {
    "OPT": {"ffn_dim": 52, "word_embed_proj_dim": 36},  # no rotation, biases everywhere
    "Qwen2": {"intermediate_size": 52, "num_key_value_heads": 2},  # rotation, biases, groups
    "Llama": {"intermediate_size": 52, "num_key_value_heads": 6},  # rotation, a value head each
    "Phi": {"intermediate_size": 52, "partial_rotary_factor": 0.67},  # 4 of 6 are rotated
    "Cohere": {"intermediate_size": 52, "num_key_value_heads": 3},  # adjacent pairs
}


@torch.no_grad()
def spare(model):
    """Make what A3 removes at 30% superfluous: rank 4 of 6, or one pair idle; 16 neurons idle."""
    generator = torch.Generator().manual_seed(2)
    for component in components(model):
        linears = component.linears
        if component.kind == "mlp":
            linears["down"].weight[:, 1:17] = 0
            continue
        pair = {"half": [1, 4], "adjacent": [2, 3], "partial": [1, 3]}
        for role in "qkv":
            linear = linears[role]
            if role != "v" and component.rotary is not None:
                rows = linear.weight.view(-1, 6, 36)
                rows[:, pair[component.rotary]] = 0
                if linear.bias is not None:
                    linear.bias.view(-1, 6)[:, pair[component.rotary]] = 0
                continue
            shrink = torch.randn(6, 4, generator=generator, dtype=torch.float64)
            shrink = shrink @ torch.randn(4, 6, generator=generator, dtype=torch.float64) / 3
            linear.weight.copy_((shrink @ linear.weight.view(-1, 6, 36)).view(-1, 36))
            if linear.bias is not None:
                linear.bias.copy_((linear.bias.view(-1, 6) @ shrink.mT).flatten())


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_lost_where_what_goes_is_superfluous(family, batches):
    """Through the driver, with rotation, groups and biases: the same logits from fewer numbers."""
    model = tiny(family, **FAMILIES[family])
    spare(model)
    with torch.no_grad():
        before = model(batches[0]).logits
        with compressed(model, A3(compression=0.3), batches) as compression:
            after = model(batches[0]).logits
            assert any(isinstance(m, Affine) for m in model.modules()) == (
                family in ("OPT", "Qwen2", "Phi")
            )
        assert torch.equal(model(batches[0]).logits, before)
    torch.testing.assert_close(after, before, rtol=1e-7, atol=1e-7)
    for row in compression.rows:
        assert 0.6 < row.cost.density <= 0.7, row.name


def rotation(config):
    model = torch.nn.Module()
    model.config = config
    return _rotary(model)


@pytest.mark.parametrize(
    ("family", "rotary"),
    [
        ("Llama", "half"),
        ("Cohere", "adjacent"),
        ("Ernie4_5_Moe", "adjacent"),
        ("Cohere2Moe", "adjacent"),
        ("Llama4Text", "adjacent"),
        ("GPTJ", "partial"),
        ("Phi", "partial"),
    ],
)
def test_pairs_are_those_that_the_family_rotates(family, rotary):
    """A family that is taken for another loses halves of pairs, and says nothing."""
    config = getattr(transformers, f"{family}Config")()
    assert rotation(config) == rotary
    name = "Llama4" if family == "Llama4Text" else family
    causal = getattr(transformers, f"{name}ForCausalLM")
    turn = getattr(sys.modules[causal.__module__], "rotate_half", None)
    if turn is not None and rotary != "partial":
        four = turn(torch.arange(1.0, 5.0)).abs().tolist()
        assert four == {"half": [3, 4, 1, 2], "adjacent": [2, 1, 4, 3]}[rotary]


def test_layers_that_rotate_a_share_are_seen_among_those_that_rotate_all():
    config = transformers.LlamaConfig()
    kinds = {
        "full_attention": {"rope_theta": 1e4, "partial_rotary_factor": 0.25},
        "sliding_attention": {"rope_theta": 1e4},
    }
    config.rope_parameters = kinds
    assert rotation(config) == "partial"


def test_each_part_alone_changes_its_own_linears_alone(llama, batches):
    roles = {"qk": {"q_proj", "k_proj"}, "ov": {"v_proj", "o_proj"}}
    roles["mlp"] = {"gate_proj", "up_proj", "down_proj"}
    for part, names in roles.items():
        with compressed(llama, A3(compression=0.3, parts=(part,)), batches) as compression:
            assert {row.name.rsplit(".", 1)[1] for row in compression.rows} == names


@pytest.mark.parametrize("metric", ["moments", "weights", "random"])
def test_the_controls_spend_the_same(llama, batches, metric):
    with compressed(llama, A3(compression=0.4, metric=metric), batches) as compression:
        kept = compression.cost.kept
    with compressed(llama, A3(compression=0.4), batches) as compression:
        assert compression.cost.kept == kept


def test_half_precision_stays_in_its_format(llama, batches):
    model = llama.to(torch.bfloat16)
    with compressed(model, A3(compression=0.3), batches), torch.no_grad():
        logits = model(batches[0]).logits
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("qwen3", r"Qwen3Attention has a q_norm.*leave 'qk' out of parts"),
        ("phi3", "fused"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused_by_name(families, family, message, batches):
    model = families[family]()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(BadInput, match=message), compressed(model, A3(), batches):
        pass
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_an_attention_that_is_fused_stays_dense_and_is_named(families, batches):
    with compressed(families["gptneox"](), A3(), batches) as compression:
        assert "layers.0.attention.query_key_value" in compression.left
        assert {row.name.split(".")[2] for row in compression.rows} == {"mlp"}


def test_a_norm_on_queries_leaves_the_other_parts(families, batches):
    with compressed(families["qwen3"](), A3(parts=("ov", "mlp")), batches) as compression:
        assert len(compression.rows) == 3 * 5


def test_it_is_found_by_name():
    assert method("a3") is A3
    assert isinstance(A3(), ComponentMethod)
    assert not isinstance(A3(), Method)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compression": 1.0}, "compression"),
        ({"parts": ()}, "parts"),
        ({"parts": ("kq",)}, r"parts \('kq',\): a tuple of some of qk, ov, mlp"),
        ({"metric": "fisher"}, "metric"),
    ],
)
def test_settings_that_are_none_are_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        A3(**settings)
