"""Every family, with padding and windows, against eager attention in float64."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from mech.blocks import decoder_blocks
from mech.capture import capture, capture_blocks
from mech.errors import BadInput
from mech.standing import NAME, editing

SEQ = 21  # the windows are 8

PADDED = {
    "plain": [(0, SEQ), (0, SEQ)],
    "right": [(0, SEQ), (0, 13)],
    "left": [(0, SEQ), (9, SEQ)],
    "unequal": [(4, SEQ), (0, 17), (3, 20)],
}


class Eager(NamedTuple):
    pattern: np.ndarray
    hidden: np.ndarray


@pytest.fixture
def exact(tiny, monkeypatch):
    """The model in float64, also its softmax, of which eager attention asks float32."""
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim))
    if tiny.family == "gpt_oss":
        tiny.model.set_experts_implementation("eager")  # the grouped products know no float64
    return tiny.model.double()


@torch.no_grad()
def eager(model, tokens, mask, positions) -> Eager:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    found = model.base_model(
        tokens,
        attention_mask=mask,
        position_ids=positions,
        use_cache=False,
        output_attentions=True,
        output_hidden_states=True,
    )
    model.set_attn_implementation(before)
    # The last hidden state is after the final norm.
    return Eager(
        torch.stack(found.attentions).numpy(), torch.stack(found.hidden_states[:-1]).numpy()
    )


def batch(case, generator):
    spans = PADDED[case]
    tokens = torch.randint(3, 97, (len(spans), SEQ), generator=generator)
    mask = torch.zeros_like(tokens)
    for row, (start, stop) in enumerate(spans):
        mask[row, start:stop] = 1
    return tokens, mask


@pytest.mark.parametrize("case", PADDED)
def test_every_family_is_eager_under_padding(exact, case, generator, measured):
    tokens, mask = batch(case, generator)
    real = mask.bool().numpy()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    expected = eager(exact, tokens, mask, positions)
    blocks = capture_blocks(exact, tokens, lambda block: block, mask)
    trace = capture(exact, tokens, mask)
    worst = 0.0
    for layer, block in enumerate(blocks):
        # Padding queries attend to nothing here; what eager attention gives them is noise.
        pattern = expected.pattern[layer] * real[:, None, :, None]
        received = pattern.sum(axis=2)
        pairs = [
            (trace.pattern[layer], pattern),
            (block.received, received),
            (block.missing, real.sum(axis=1)[:, None] - received.sum(axis=-1)),
            (block.resid_pre[real], expected.hidden[layer][real]),
        ]
        for found, true in pairs:
            worst = max(worst, float(np.abs(found - true).max() / max(1, np.abs(true).max())))
        np.testing.assert_array_equal(block.reach, (pattern > 0).any(axis=1).sum(axis=1))
        np.testing.assert_array_equal(block.real, real)
    measured(f"capture against eager float64, {type(exact).__name__}, {case}", worst, "1e-5")
    assert worst < 1e-11


def test_a_padded_sequence_reads_as_it_does_alone(exact, generator):
    tokens, mask = batch("unequal", generator)
    together = capture_blocks(exact, tokens, lambda block: block, mask)
    for row, (start, stop) in enumerate(PADDED["unequal"]):
        alone = capture_blocks(exact, tokens[row : row + 1, start:stop], lambda block: block)
        for found, true in zip(together, alone, strict=True):
            at = slice(start, stop)
            close(found.received[row][:, at], true.received[0])
            close(found.resid_post[row, at], true.resid_post[0])
            np.testing.assert_array_equal(found.reach[row, at], true.reach[0])
            assert not found.received[row][:, ~mask[row].bool().numpy()].any()


def test_writes_add_up_in_every_family(exact, generator):
    tokens, mask = batch("plain", generator)
    for block in capture_blocks(exact, tokens, lambda block: block, mask):
        assert block.attn_write is not None
        assert block.mlp_write is not None
        close(block.attn_write + block.mlp_write, block.resid_post - block.resid_pre)


def test_the_attention_write_is_what_the_heads_wrote(exact, generator):
    """With z removed, what attention writes is a constant, and the MLP's write is not."""
    tokens, mask = batch("plain", generator)
    nothing = {0: [lambda z, call: torch.zeros_like(z)]}
    with editing(exact, nothing):
        block = capture_blocks(exact, tokens, lambda block: block, mask)[0]
    assert block.attn_write is not None
    assert block.mlp_write is not None
    assert not block.z.any()
    assert np.ptp(block.attn_write, axis=(0, 1)).max() == 0
    assert np.ptp(block.mlp_write, axis=(0, 1)).max() > 0.01


@pytest.mark.parametrize("tiny", ["opt"], indirect=True)
def test_writes_of_a_block_that_ends_in_a_norm_are_not_told(tiny, tokens):
    for block in decoder_blocks(tiny.model):
        vars(block)["do_layer_norm_before"] = False
    found = capture_blocks(tiny.model, tokens, lambda block: (block.attn_write, block.mlp_write))
    assert found == [(None, None)] * 3


def test_nothing_of_the_model_is_changed(tiny, tokens):
    model = tiny.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    own = [getattr(module, "config", None) for module in model.modules()]
    own = [config._attn_implementation for config in own if config is not None]
    capture_blocks(model, tokens, lambda block: block)
    with pytest.raises(ZeroDivisionError):
        capture_blocks(model, tokens, lambda block: 1 // 0)
    with pytest.raises(BadInput):
        capture_blocks(model, tokens - 97, lambda block: block)
    after = [getattr(module, "config", None) for module in model.modules()]
    assert [config._attn_implementation for config in after if config is not None] == own
    assert NAME not in own
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("tiny", ["gpt2", "opt"], indirect=True)
def test_more_tokens_than_learned_positions_are_refused(tiny):
    with pytest.raises(BadInput, match=r"70 tokens are more than a (GPT2LMHead|OPTFor)"):
        capture_blocks(tiny.model, torch.zeros(1, 70, dtype=torch.long), lambda block: None)


@pytest.mark.parametrize("tiny", ["llama", "gemma3"], indirect=True)
def test_more_tokens_than_a_rotary_model_was_made_for_are_read(tiny):
    (first, *_) = capture_blocks(
        tiny.model, torch.zeros(1, 70, dtype=torch.long), lambda block: block.received
    )
    np.testing.assert_allclose(first.sum(axis=-1), 70, rtol=1e-4)


def close(found, true):
    np.testing.assert_allclose(found, true, atol=1e-11 * max(1, np.abs(true).max()), rtol=0)
