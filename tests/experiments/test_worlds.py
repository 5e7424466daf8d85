"""Toy and language model in one form: what is known of each is found, whatever the gauge."""

import numpy as np
import pytest
import torch
import transformers

from experiments import worlds_gauge, worlds_read
from experiments.progress import Progress
from experiments.settings import BadOption
from experiments.worlds import Config, is_sink, paired, run
from experiments.worlds_read import World
from mech.blocks import decoder_blocks
from mech.capture import capture
from mech.heads import head_weights
from mech.load import Loaded
from mech.probes.spectra import effective_rank


def built(family="Llama"):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=97, hidden_size=48, intermediate_size=56, num_hidden_layers=3,
        num_attention_heads=6, num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    model = getattr(transformers, f"{family}ForCausalLM")(config).double().eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += torch.rand(parameter.shape).double() - 0.3
    return model.requires_grad_(False)


def read(model, tokens):
    loaded = Loaded(model, None, "tiny", "nowhere", "")  # pyright: ignore[reportArgumentType]
    return worlds_read.language_model(loaded, tokens, 2, lambda _: None, 0)


@pytest.fixture
def tokens(generator):
    return torch.randint(0, 97, (3, 21), generator=generator)


def test_mass_and_tag_are_those_of_the_whole_pattern(tokens):
    """By another way: the whole pattern, and the value of the first token written out."""
    model = built()
    world, trace = read(model, tokens), capture(model, tokens)
    mass = trace.pattern[:, :, :, 1:, 0].mean(axis=(1, 3)).ravel()
    np.testing.assert_allclose(world.mass, mass, rtol=1e-9)
    tags = []
    for layer, block in enumerate(decoder_blocks(model)):
        first = block.get_submodule("input_layernorm")(torch.from_numpy(trace.resid[layer][:, 0]))
        value = block.get_submodule("self_attn.v_proj")(first).view(3, 2, 8)
        written = (
            value.repeat_interleave(3, dim=1).numpy()[:, :, None] @ head_weights(model, layer).W_O
        )
        moved = trace.pattern[layer][:, :, 1:, :1] * written
        lengths = np.linalg.norm(trace.resid[layer][:, 1:], axis=-1)[:, None]
        tags.append((np.linalg.norm(moved, axis=-1) / lengths).mean(axis=(0, 2)))
    np.testing.assert_allclose(world.tag, np.concatenate(tags), rtol=1e-6)


def test_a_world_does_not_change_when_norm_and_weights_share_their_scale_otherwise(tokens):
    """In the model itself: g D and W D⁻¹ leave the logits, and every column of the table."""
    model = built()
    before, logits = read(model, tokens), model(tokens).logits
    raw = head_weights(model, 1)
    for block in decoder_blocks(model):
        scale = torch.exp(2 * torch.rand(48).double())
        block.get_submodule("input_layernorm").get_parameter("weight").data *= scale
        for name in ("q_proj", "k_proj", "v_proj"):
            block.get_submodule(f"self_attn.{name}").get_parameter("weight").data /= scale
    torch.testing.assert_close(model(tokens).logits, logits, rtol=1e-9, atol=1e-9)
    after = read(model, tokens)
    for name in ("mass", "tag"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-5)
    for name in ("QK", "OV"):
        ranks = [effective_rank(getattr(world, name)) for world in (before, after)]
        np.testing.assert_allclose(*ranks, rtol=1e-5)
    alone = [
        effective_rank(np.linalg.svd(w.W_Q, compute_uv=False))
        for w in (raw, head_weights(model, 1))
    ]
    assert np.abs(alone[1] / alone[0] - 1).max() > 0.01


def test_the_table_of_gauges_tells_the_measures_apart():
    moved = worlds_gauge.moved(built(), 0)
    invariant = {name for name, by in moved.items() if max(by.basis, by.gain) < 1e-9}
    assert invariant == {"W_Q W_Kᵀ, gain included", "W_V W_O, gain included"}
    for name, by in moved.items():
        assert by.heads == 18
        if name not in invariant:
            assert max(by.basis, by.gain) > 0.01


def test_the_theorem_has_one_sink_head_of_the_ranks_that_its_weights_show():
    world = worlds_read.theorem(0)
    np.testing.assert_allclose(world.mass[0], 1, atol=1e-9)
    assert is_sink(world, 0.3).tolist() == [True, False]
    np.testing.assert_allclose(effective_rank(world.QK), [2, 1], atol=1e-9)  # I, and d e_2 e_2ᵀ
    np.testing.assert_allclose(effective_rank(world.OV), [1, 1], atol=1e-9)  # diag(0, -1), e_1 e_1ᵀ
    # [SEP] writes its tag of 40 onto streams of about 1.
    assert world.tag[0] > 10
    assert world.tag[1] < 1e-6


def planted(rank_of_sinks):
    """Ten layers of four heads, half of them sinks, with that many equal directions."""
    directions = np.where(np.tile([True, True, False, False], 10)[:, None], rank_of_sinks, 3)
    values = (np.arange(5) < directions).astype(float)
    mass = np.tile([0.9, 0.5, 0.1, 0.2], 10)
    return World("w", "s", np.repeat(np.arange(10), 4), mass, mass, *[values] * 4)


@pytest.mark.parametrize("rank", [2, 3, 5])
def test_a_planted_difference_of_rank_is_found(rank):
    world = planted(rank)
    found = paired(world, effective_rank(world.QK), 0.3)
    assert found is not None
    np.testing.assert_allclose(found[:3], rank - 3.0, atol=1e-9)
    assert found.n == 10


def test_layers_with_one_kind_of_head_are_no_unit():
    world = planted(2)
    assert paired(world, effective_rank(world.QK), 0.95) is None
    few = World(*world[:2], np.repeat([0, 1], [38, 2]), *world[3:])
    assert paired(few, effective_rank(few.QK), 0.3) is None


def test_a_difference_between_layers_is_not_one_between_heads():
    """Layers of sinks with high rank beside layers of others: nothing to pair, nothing to say."""
    group = np.repeat(np.arange(10), 4)
    mass = np.where(group < 5, 0.9, 0.1)
    mass[[0, 4, 35, 39]] = [0.1, 0.1, 0.9, 0.9]
    values = np.where(group < 5, 9.0, 1.0)
    world = World("w", "s", group, mass, mass, *[values[:, None]] * 4)
    found = paired(world, values, 0.3)
    assert found is not None
    assert (found.mean, found.n) == (0, 4)


def test_steps_that_no_checkpoints_divide_are_refused_before_the_first_training():
    with pytest.raises(BadOption, match="--larger-steps 30: give a multiple of 20"):
        run(Config(larger_steps=30), Progress())
