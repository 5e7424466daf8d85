"""The planted models are what their formulas say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mech.capture import capture
from mech.errors import BadInput
from mech.planted import expect
from mech.planted.build import planted
from mech.planted.plan import BOS, RAISED, SEP, STOP, Size, draw
from mech.planted.stream import directions, embeddings
from mech.probes.sinks import EPSILON, guarded, received_of, score

SIZES = [
    Size(),
    Size(layers=9, heads=5, kv_heads=5, d_model=75, d_head=12, seq=131),
    Size(layers=12, heads=8, kv_heads=4, d_model=128, vocabulary=101),
]


@pytest.fixture(scope="module", params=range(3))
def seen(request):
    """(planted, its trace): one model of every size."""
    made = planted(request.param, SIZES[request.param % 3], batch=2)
    return made, capture(made.model, made.tokens)


def test_every_token_has_one_norm_and_the_directions_are_orthonormal():
    for seed, size in enumerate(SIZES):
        plan = draw(seed, size)
        along = directions(plan)
        np.testing.assert_allclose(
            np.linalg.norm(embeddings(plan, along), axis=1), np.sqrt(64 + 4), rtol=1e-12
        )
        basis = np.concatenate([np.atleast_2d(f) for f in along._replace(raised=along.aside)[:]])
        distinct = np.delete(basis, 4, axis=0)  # `raised` leans on p and aside
        np.testing.assert_allclose(distinct @ distinct.T, np.eye(len(distinct)), atol=1e-12)
        assert along.raised @ along.primary == pytest.approx(plan.cosine)


def test_attention_is_the_closed_form(seen):
    """Of every head at every key: closer than half of any score's distance to the threshold."""
    made, trace = seen
    tokens, expected = made.tokens.numpy(), expect.score(made.plan, made.tokens.numpy())
    counted = guarded(tokens.shape[1])
    counted[0] = True
    margin = np.abs(expected[..., counted] - EPSILON).min()
    error = np.abs(score(received_of(trace)) - expected)[..., counted].max()
    assert error < 0.5 * margin
    assert expected[..., counted].max() > 0.9


def test_without_noise_the_formulas_are_all_there_is():
    made = planted(4, SIZES[2], batch=2, noise=0.0)
    trace, tokens = capture(made.model, made.tokens), made.tokens.numpy()
    # What is left out: a sink's logits are PARK ± what the others' constants leave of the norm.
    np.testing.assert_allclose(
        score(received_of(trace)), expect.score(made.plan, tokens), atol=2e-3
    )
    layer = made.plan.read[0]
    wrote = (trace.resid[layer + 1] - trace.resid[layer]) @ directions(made.plan).out
    np.testing.assert_allclose(wrote, expect.read(made.plan, tokens), atol=2e-3)


def test_only_planted_tokens_are_sinks_and_each_is_one(seen):
    made, _ = seen
    tokens, found = made.tokens.numpy(), expect.sinks(made.plan, made.tokens.numpy())
    counted = guarded(tokens.shape[1])
    counted[0] = True
    found = found & counted
    special = np.isin(tokens, [BOS, SEP, STOP, RAISED])
    np.testing.assert_array_equal(found.any(axis=(0, 2)), special)


def test_the_mlps_write_and_erase_what_the_plan_says(seen):
    made, trace = seen
    plan, tokens, along = made.plan, made.tokens.numpy(), directions(made.plan)
    for depth, stream in enumerate(trace.resid):
        height = expect.heights(plan, tokens, depth)
        for token, way, most in [
            (BOS, along.primary, plan.heights[0]),
            (SEP, along.separators[0], plan.heights[1]),
            (STOP, along.separators[1], plan.heights[2]),
            (RAISED, along.raised, plan.raised_height),
        ]:
            # What is written goes with 1/|h|², which heads have moved by less than 0.5%.
            here = tokens == token
            np.testing.assert_allclose(stream[here] @ way, height[here], atol=0.01 * most)
        ordinary = ~np.isin(tokens, [BOS, SEP, STOP, RAISED])
        assert np.linalg.norm(stream[ordinary], axis=-1).max() < 10
    if plan.end == plan.size.layers - 1:
        assert np.abs(trace.resid[-1]).max() < 30  # every massive activation is gone again


def test_the_model_is_an_ordinary_llama(seen):
    made, _ = seen
    eager = replace_attention(made.model, "eager")(made.tokens, output_attentions=True)
    plan = made.plan
    layer, head = plan.catch
    expected = expect.pattern(plan, made.tokens.numpy(), layer, head)
    np.testing.assert_allclose(eager.attentions[layer][:, head], expected, atol=0.05)
    assert eager.logits.shape == (*made.tokens.shape, plan.size.vocabulary)
    assert torch.isfinite(eager.logits).all()


def replace_attention(model, name):
    model.set_attn_implementation(name)
    return model


def test_a_seed_is_one_model_and_another_seed_another():
    one, same, other = planted(3), planted(3), planted(4)
    assert one.plan.roles == same.plan.roles != other.plan.roles
    for a, b in zip(one.model.parameters(), same.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.model.lm_head.weight, other.model.lm_head.weight)
    assert torch.equal(one.tokens, same.tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seq": 127}, "127 tokens are too few"),
        ({"layers": 7}, "at least 8 layers"),
        ({"d_head": 10}, "d_head of at least 12"),
        ({"heads": 12, "kv_heads": 4, "d_model": 96}, "1 or 2 a key head"),
        ({"d_model": 65}, "multiple of heads"),
    ],
)
def test_a_shape_that_cannot_hold_the_plants_is_refused(change, message):
    with pytest.raises(BadInput, match=message):
        planted(0, replace(Size(), **change))
