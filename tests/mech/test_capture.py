import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers

from mech.blocks import decoder_blocks, unwrap
from mech.capture import capture, capture_blocks
from mech.errors import BadInput
from mech.standing import current_reader, editing, reading


@torch.no_grad()
def eager(model, tokens, out):
    """(resid, pattern, z) by another way: eager attention, and hooks of this test's own."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    stream, heads, handles = [], [], []
    blocks = decoder_blocks(model)
    handles.append(blocks[0].register_forward_pre_hook(lambda _, args: stream.append(args[0])))
    for block in blocks:
        handles.append(block.register_forward_hook(lambda *a: stream.append(unwrap(a[-1]))))
        attention = next(
            m for n, m in block.named_children() if n in ("self_attn", "attention", "attn")
        )
        projection = attention.get_submodule(out)
        handles.append(projection.register_forward_pre_hook(lambda _, args: heads.append(args[0])))
    found = model(tokens, output_attentions=True, use_cache=False)
    for handle in handles:
        handle.remove()
    model.set_attn_implementation(before)
    pattern = torch.stack(found.attentions)
    batch, seq = tokens.shape
    z = torch.stack([h.view(batch, seq, pattern.shape[2], -1).transpose(1, 2) for h in heads])
    return torch.stack(stream).numpy(), pattern.numpy(), z.numpy()


def close(found, expected, tolerance):
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max(), rtol=0)


@pytest.fixture
def exact_softmax(monkeypatch):
    """Eager attention asks its softmax for float32 whatever the model is; here it is kept exact."""
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim))


def double(tiny):
    model = tiny.model.double()
    if tiny.family == "gpt_oss":
        model.set_experts_implementation("eager")  # the grouped products know no float64
    return model


def test_a_float32_capture_is_as_near_to_float64_as_eager_is(tiny, tokens, exact_softmax, measured):
    """These weights are wild: three blocks magnify a rounding a hundred times, eager's as ours."""
    trace = capture(tiny.model, tokens)
    single = eager(tiny.model, tokens, tiny.out)
    exact = eager(double(tiny), tokens, tiny.out)
    # Uniform attention would give H_21 / 21 = 0.17: the test must be able to see a difference.
    assert exact[1].max(-1).mean() > 0.3
    ours, eagers = (
        [float(np.abs(found - true).max() / np.abs(true).max()) for found, true in pairs]
        for pairs in (zip(trace[1:], exact, strict=True), zip(single, exact, strict=True))
    )
    name = type(tiny.model).__name__
    measured(f"pattern of a float32 capture against float64, tiny {name}", ours[1], eagers[1])
    np.testing.assert_array_less(ours, 3 * np.array(eagers))


def test_streaming_is_eager_in_float64(tiny, tokens, exact_softmax, measured):
    model = double(tiny)
    resid, pattern, z = eager(model, tokens, tiny.out)
    trace = capture(model, tokens)
    assert trace.resid.dtype == trace.pattern.dtype == np.float64
    close(trace.resid, resid, 1e-12)
    close(trace.pattern, pattern, 1e-12)
    worst = float(np.abs(trace.pattern - pattern).max())
    measured(f"pattern against eager float64, tiny {type(tiny.model).__name__}", worst, "1e-5")
    close(trace.z, z, 1e-12)
    np.testing.assert_array_equal(trace.tokens, tokens)


def test_blocks_are_the_trace_in_parts(tiny, tokens):
    trace = capture(tiny.model, tokens)
    blocks = capture_blocks(tiny.model, tokens, lambda block: block)
    assert [block.layer for block in blocks] == [0, 1, 2]
    for block in blocks:
        np.testing.assert_array_equal(block.resid_pre, trace.resid[block.layer])
        np.testing.assert_array_equal(block.resid_post, trace.resid[block.layer + 1])
        np.testing.assert_array_equal(block.z, trace.z[block.layer])
        received = trace.pattern[block.layer].sum(axis=-2)
        np.testing.assert_allclose(block.received, received, atol=1e-5)


def test_rows_sum_to_one_less_the_learned_sink_and_are_causal(tiny, tokens):
    trace = capture(tiny.model, tokens)
    missing = np.stack(capture_blocks(tiny.model, tokens, lambda block: block.missing))
    np.testing.assert_allclose(21 - trace.pattern.sum((-1, -2)), missing, atol=1e-4)
    if tiny.family == "gpt_oss":
        assert missing.mean() > 0.1
    else:
        np.testing.assert_allclose(trace.pattern.sum(-1), 1, atol=1e-5)
    assert not np.triu(trace.pattern, 1).any()


@pytest.mark.parametrize("tiny", ["mistral", "gemma2", "gemma3", "gpt_oss"], indirect=True)
def test_a_window_hides_what_is_behind_it(tiny, tokens):
    pattern = capture(tiny.model, tokens).pattern
    far = np.tril(np.ones((21, 21), bool), -8)
    assert not pattern[0][..., far].any()


def test_the_model_is_as_before(tiny, tokens):
    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny.model.modules())

    with torch.no_grad():
        logits = tiny.model(tokens).logits
    implementation = tiny.model.config._attn_implementation
    capture(tiny.model, tokens)
    with pytest.raises(ZeroDivisionError):
        capture_blocks(tiny.model, tokens, lambda block: 1 // 0)
    assert tiny.model.config._attn_implementation == implementation
    assert hooks() == 0
    with torch.no_grad():
        assert torch.equal(tiny.model(tokens).logits, logits)


def test_one_block_is_in_memory_at_a_time(llama, tokens):
    import gc
    import weakref

    alive = []

    def read(block):
        gc.collect()
        assert not any(reference() is not None for reference in alive)
        alive.append(weakref.ref(block.received))

    capture_blocks(llama, tokens, read)
    assert len(alive) == 3


def test_a_capture_inside_a_capture(llama, tokens):
    """The inner one runs through blocks that the outer one watches, in the middle of its pass."""

    def read(block):
        inner = capture_blocks(llama, tokens[:1, :9], lambda inner: inner.received)
        return block.received, inner

    alone = capture_blocks(llama, tokens, lambda block: block.received)
    shorter = capture_blocks(llama, tokens[:1, :9], lambda block: block.received)
    for (outer, inner), expected in zip(capture_blocks(llama, tokens, read), alone, strict=True):
        np.testing.assert_array_equal(outer, expected)
        np.testing.assert_array_equal(inner, shorter)
    assert llama.config._attn_implementation == "sdpa"


def test_a_pass_of_the_readers_own_is_not_read(llama, tokens):
    """Nor does it disturb what is: a plain forward pass, or generation, inside `read`."""
    alone = capture_blocks(llama, tokens, lambda block: block.received)
    again = capture_blocks(llama, tokens, lambda block: (block.received, llama(tokens).logits)[0])
    for found, expected in zip(again, alone, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_reader_sees_its_model_alone(llama, tokens):
    """Two models of one configuration: what stands in for one's attention does for the other's."""
    other = transformers.LlamaForCausalLM(llama.config).eval()
    seen = []
    with reading(llama, lambda call, mass, z: seen.append(call.layer)), torch.no_grad():
        other(tokens)
        assert not seen
        llama(tokens)
    assert seen == [0, 1, 2]


def test_ends_may_cross(llama, tokens):
    """As those of two generators do."""
    seen = []
    first, second = (
        reading(llama, lambda call, mass, z, name=name: seen.append(name)) for name in "ab"
    )
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with torch.no_grad():
        llama(tokens)
    second.__exit__(None, None, None)
    assert seen == ["b"] * 3
    assert current_reader() is None
    assert llama.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "context", [lambda m: reading(m, lambda *_: None), lambda m: editing(m, {})]
)
def test_a_gradient_through_what_is_read_is_refused(llama, tokens, context):
    """Queries and keys would get none, and the sum would look like a gradient."""
    with context(llama):
        loss = llama(tokens).logits.sum()
    with pytest.raises(BadInput, match="no gradients: call the model under"):
        loss.backward()


def test_generation_inside_is_as_outside_and_reads_a_growing_cache(llama, tokens):
    asked = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    prompt, sizes = tokens[:1], []
    with reading(llama, lambda call, mass, z: sizes.append((z.shape[2], mass.received.shape[2]))):
        inside = llama.generate(prompt, **asked)
    assert torch.equal(inside, llama.generate(prompt, **asked))
    assert sizes[::3] == [(21, 21), (1, 22), (1, 23)]


@pytest.mark.parametrize("kind", [IndexError, RuntimeError])
@pytest.mark.parametrize("layer", [0, 2])
def test_an_error_of_the_reader_is_its_own(llama, tokens, kind, layer):
    def read(block):
        if block.layer == layer:
            raise kind("mine")

    with pytest.raises(kind, match="mine"):
        capture_blocks(llama, tokens, read)


def test_an_error_ahead_of_attention_is_the_models_own(llama, tokens):
    def full(*_):
        raise RuntimeError("out of memory")

    decoder_blocks(llama)[0].get_submodule("self_attn.q_proj").register_forward_hook(full)
    with pytest.raises(RuntimeError, match="out of memory"):
        capture_blocks(llama, tokens, lambda block: block)


def test_captures_in_threads_on_one_model(llama, generator):
    texts = [torch.randint(0, 97, (1, seq), generator=generator) for seq in (21, 34, 7, 13)]
    alone = [capture_blocks(llama, text, lambda block: block.received) for text in texts]
    meet = threading.Barrier(len(texts), timeout=60)

    def read(block):
        if block.layer == 1:
            meet.wait()  # all are in the middle of the model
        return block.received

    with ThreadPoolExecutor(len(texts)) as pool:
        found = list(pool.map(lambda text: capture_blocks(llama, text, read), texts))
    for together, expected in zip(found, alone, strict=True):
        for received, true in zip(together, expected, strict=True):
            np.testing.assert_array_equal(received, true)
    assert llama.config._attn_implementation == "sdpa"


def test_a_block_that_attends_twice_is_refused(llama, tokens):
    attention = decoder_blocks(llama)[1].get_submodule("self_attn")
    once = attention.forward
    attention.forward = lambda *args, **kwargs: (once(*args, **kwargs), once(*args, **kwargs))[1]
    with pytest.raises(BadInput, match="block 1 attends more than once"):
        capture_blocks(llama, tokens, lambda block: block)


def test_a_mask_by_query_and_key_is_read(llama, tokens):
    """Four axes, as transformers takes it too: here a window that the model does not have."""
    at = torch.arange(21)
    seen = (at <= at[:, None]) & (at > at[:, None] - 5)
    found = []
    with reading(llama, lambda call, mass, z: found.append(mass.received)), torch.no_grad():
        llama(tokens, attention_mask=seen[None, None].expand(2, 1, 21, 21))
    llama.set_attn_implementation("eager")
    added = torch.zeros(2, 1, 21, 21).masked_fill(~seen, torch.finfo(torch.float32).min)
    with torch.no_grad():
        expected = llama(tokens, attention_mask=added, output_attentions=True).attentions
    for received, pattern in zip(found, expected, strict=True):
        torch.testing.assert_close(received, pattern.sum(dim=2), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["position_bias", "head_mask"])
def test_biases_and_head_masks_are_refused_by_name(llama, tokens, name):
    with pytest.raises(BadInput, match=f"LlamaAttention passes `{name}`"), reading(llama, print):
        llama(tokens, **{name: torch.ones(1)})


def test_an_error_of_an_edit_is_its_own(llama, tokens):
    def broken(z, call):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"), editing(llama, {0: [broken]}):
        capture_blocks(llama, tokens, lambda block: block)


def test_reading_does_not_see_what_is_changed_later(llama, tokens):
    """A block that adds to the stream in place must not change what was read before it."""
    kept = capture_blocks(llama, tokens, lambda block: block)
    block = decoder_blocks(llama)[1]
    original = block.forward

    def in_place(hidden_states, *args, **kwargs):
        return hidden_states.copy_(original(hidden_states, *args, **kwargs))

    block.forward = in_place
    for found, true in zip(capture_blocks(llama, tokens, lambda b: b), kept, strict=True):
        np.testing.assert_array_equal(found.resid_pre, true.resid_pre)
        np.testing.assert_array_equal(found.resid_post, true.resid_post)


def test_bfloat16_arrives_as_float32(llama, tokens):
    trace = capture(llama.bfloat16(), tokens)
    assert {a.dtype for a in trace[1:]} == {np.dtype(np.float32)}


def test_training_mode_is_refused(llama, tokens):
    with pytest.raises(BadInput, match="training mode"):
        capture(llama.train(), tokens)


@pytest.mark.parametrize("bad", [97, -1])
def test_an_id_outside_the_vocabulary_is_refused(llama, tokens, bad):
    tokens[1, 3] = bad
    with pytest.raises(BadInput, match=f"token id {bad} is outside the vocabulary of 97"):
        capture(llama, tokens)


def test_no_tensor_of_the_model_is_left_unchangeable(llama, tokens):
    """Frequencies that a long text makes a model compute anew stay with it after the pass."""
    config = llama.config
    config.max_position_embeddings = 16
    config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    model = transformers.LlamaForCausalLM(config).eval()
    capture(model, tokens)
    assert not any(tensor.is_inference() for tensor in model.buffers())


def test_no_tokens_are_refused(llama):
    with pytest.raises(BadInput, match="no tokens"):
        capture(llama, torch.zeros(1, 0, dtype=torch.long))


def test_an_infinite_activation_names_its_block(llama, tokens):
    with torch.no_grad():
        decoder_blocks(llama)[1].get_parameter("mlp.down_proj.weight")[0, 0] = float("inf")
    with pytest.raises(BadInput, match="leaves block 1 is not finite"):
        capture_blocks(llama, tokens, lambda block: None)


@pytest.mark.parametrize(
    ("family", "settings", "block"),
    [
        ("Bloom", {"n_layer": 2, "n_head": 4}, "BloomBlock"),
        ("Falcon", {"num_hidden_layers": 2, "num_attention_heads": 4}, "FalconDecoderLayer"),
        # This one fails before its first block: its positions are a bias of the mask.
        (
            "Falcon",
            {"num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
            "FalconDecoderLayer",
        ),
    ],
)
def test_attention_of_its_own_is_refused(tokens, family, settings, block):
    config = getattr(transformers, f"{family}Config")(vocab_size=97, hidden_size=32, **settings)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with pytest.raises(BadInput, match=f"{block} does not call transformers' Attention"):
        capture(model, tokens)
