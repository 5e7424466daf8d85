"""Tags on arrays whose answer is known, on the toy, and on every family's own arithmetic."""

import numpy as np
import pytest

from mech.attention import pattern_rows
from mech.capture import capture_blocks
from mech.heads import head_weights
from mech.probes.agreement import grouping, survival, usable
from mech.probes.tags import cosines, of_sinks, tags
from toy.transformer import forward, theorem_weights

HEADS, SEQ, D_HEAD, D_MODEL = 3, 9, 4, 7


@pytest.fixture
def arrays():
    """A pattern whose rows sum to one, values, z = A V, and W_O."""
    generator = np.random.default_rng(0)
    pattern = np.tril(generator.uniform(size=(HEADS, SEQ, SEQ)))
    pattern /= pattern.sum(axis=-1, keepdims=True)
    value = generator.normal(size=(HEADS, SEQ, D_HEAD))
    W_O = generator.normal(size=(HEADS, D_HEAD, D_MODEL))
    return pattern, value, pattern @ value, W_O


def test_norms_and_cosines_are_those_of_the_vectors_in_the_stream(arrays):
    pattern, value, z, W_O = arrays
    sinks = np.array([1, 6])
    found = tags(pattern[..., sinks], value[:, sinks], z, W_O)
    for head in range(HEADS):
        whole = z[head] @ W_O[head]
        for place, s in enumerate(sinks):
            v = value[head, s] @ W_O[head]
            tag = pattern[head, :, s, None] * v
            np.testing.assert_allclose(found.norm[head, :, place], np.linalg.norm(tag, axis=1))
            size = np.linalg.norm(whole, axis=1)
            np.testing.assert_allclose(
                found.along[head, :, place], whole @ v / size / np.linalg.norm(v)
            )
            np.testing.assert_allclose(
                found.share[head, :, place], (tag * whole).sum(axis=1) / size**2, atol=1e-12
            )


def test_the_shares_of_all_keys_are_the_whole_output(arrays):
    pattern, value, z, W_O = arrays
    np.testing.assert_allclose(tags(pattern, value, z, W_O).share.sum(axis=-1), 1)


def test_a_head_that_looks_at_one_sink_writes_nothing_but_its_tag(arrays):
    _, value, _, W_O = arrays
    alone = np.ones((HEADS, SEQ, 1))
    z = alone @ value[:, :1]
    found = tags(alone, value[:, :1], z, W_O)
    np.testing.assert_allclose(found.share, 1)
    np.testing.assert_allclose(found.along, 1)


def test_a_value_of_nothing_has_no_direction(arrays):
    _, _, z, W_O = arrays
    found = tags(np.ones((HEADS, SEQ, 1)), np.zeros((HEADS, 1, D_HEAD)), z, W_O)
    assert not any(field.any() for field in found)


def test_cosines_of_parallel_opposite_and_orthogonal_tags():
    value = np.array([[[2.0, 0.0], [-1.0, 0.0], [0.0, 3.0]]])
    wanted = [[1, -1, 0], [-1, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(cosines(value, np.eye(2)[None])[0], wanted, atol=1e-15)
    # What is orthogonal in the head is parallel in a stream that W_O makes a line.
    np.testing.assert_allclose(np.abs(cosines(value, np.ones((1, 2, 5)))), 1)


def test_tags_of_a_running_model_are_what_its_heads_write(tiny, tokens):
    """Σ over all keys of A v W_O is z W_O, in every family: these are its values and weights."""
    layer, row = 1, 1
    block = capture_blocks(tiny.model, tokens, lambda block: block)[layer]
    every = np.arange(tokens.shape[1])
    weight, value = of_sinks(block.heads, row, every)
    pattern = pattern_rows(block.heads, every)[row]
    np.testing.assert_allclose(weight, pattern * (1 - np.eye(len(every))), atol=1e-5)
    found = tags(pattern, value, block.z[row], head_weights(tiny.model, layer).W_O)
    np.testing.assert_allclose(found.share.sum(axis=-1), 1, atol=1e-4)


def test_the_theorems_tag_is_all_of_the_head_and_groups_it_perfectly():
    t, seq = 23, 70
    x = np.random.default_rng(0).uniform(-1, 1, (1, seq))
    _, trace = forward(theorem_weights(40.0), x, t)
    value = trace.resid[0, :, None] @ np.array([[0.0, 0.0], [0.0, -1.0]])
    weight = trace.pattern[0, 0, :, :, t - 1 : t]
    found = tags(weight, value[0, :, t - 1 : t], trace.z[0, 0], np.eye(2)[None])
    np.testing.assert_allclose(found.norm[0, t:, 0], 40, rtol=1e-12)
    np.testing.assert_allclose(found.share[0, t:, 0], 1, rtol=1e-12)
    np.testing.assert_array_equal(found.norm[0, : t - 1, 0], 0)

    labels = (np.arange(seq) >= t).astype(int)
    labels[t - 1] = -1
    at = usable(labels)
    assert at is not None
    tagged = grouping(trace.z[0, 0, 0][at], labels[at])
    assert tagged.ari == pytest.approx(1)
    assert tagged.eta2 == pytest.approx(1)
    assert tagged.ari_contiguous < 0.7
    # Caught and tagged by layer 1, released by layer 2: not in what enters, in what leaves it.
    before, after, _ = survival(trace.resid[:, 0, at], labels[at])
    assert abs(before.ari) < 0.1 < 0.9 < after.ari


def test_neighbours_that_are_alike_are_no_tag():
    """A drift beats shuffled labels by far and random segments not at all."""
    generator = np.random.default_rng(0)
    drift = np.cumsum(generator.normal(size=(60, 20)), axis=0)
    labels = np.repeat([0, 1, 2], 20)
    found = grouping(drift, labels)
    assert found.ari > 10 * abs(found.ari_shuffled) + 0.2
    assert found.ari - found.ari_contiguous < 0.3
    noise = grouping(generator.normal(size=(60, 20)), labels)
    assert abs(noise.ari) < 0.15
    assert abs(noise.eta2 - noise.eta2_contiguous) < 0.03


def test_wide_vectors_group_as_they_do_in_any_basis():
    generator = np.random.default_rng(1)
    narrow = generator.normal(size=(20, 6)) + 3 * np.repeat(np.eye(2, 6), 10, axis=0)
    rotation = np.linalg.qr(generator.normal(size=(50, 6)))[0]
    labels = np.repeat([0, 1], 10)
    np.testing.assert_allclose(
        grouping(narrow, labels, draws=20), grouping(narrow @ rotation.T + 5, labels, draws=20)
    )


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ([0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 4, 5]),
        ([0, 0, 0, 1, 1, -1, 2, 2, 2], [0, 1, 2, 6, 7, 8]),
        ([0, 0, 0, 1, 1], None),
        ([-1, -1, -1, 0, 0, 0], None),
    ],
)
def test_groups_of_a_few_tokens_are_left_out(labels, kept):
    found = usable(np.array(labels))
    assert (None if found is None else found.tolist()) == kept
