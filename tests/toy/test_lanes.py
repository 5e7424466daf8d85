"""Many seeds side by side are the seeds one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toy import lanes, reduced
from toy.tasks import Batch, averaging, mean_after
from toy.transformer import Weights


def batch_with_edges(seed):
    """[SEP] first, [SEP] last but one, the shortest and the longest; padding is not zero."""
    made = averaging(jax.random.key(seed), batch=6, shortest=2, longest=13)
    t = made.t.at[0].set(1).at[1].set(12).at[2].set(1)
    last = made.last.at[0].set(13).at[1].set(13).at[2].set(2)
    x = jax.random.normal(jax.random.key(seed + 100), made.x.shape)
    return Batch(x, t, last, mean_after(x.at[jnp.arange(6), t - 1].set(0.0), t, last))


def draw(seed, seeds, scale):
    rng = np.random.default_rng(seed)
    shapes = [(), (), (2, 2), (2, 2), (2, 2), (2, 1)]
    return Weights(*(jnp.asarray(scale * rng.normal(size=(seeds, *s))) for s in shapes))


@jax.jit
def one_by_one(weights, batch):
    shared = reduced.share(batch)
    return jax.vmap(jax.value_and_grad(reduced.loss), in_axes=(0, None))(weights, shared)


@jax.jit
def side_by_side(weights, batch):
    return lanes.losses_and_gradients(weights, lanes.share(batch))


def largest_logit(weights, batch):
    """What a softmax's logits are rounded at: an error of eps times this is one of its inputs."""
    stream = jax.vmap(lambda w: reduced.apply(w, reduced.share(batch)).stream)(weights)
    W_QK = jnp.einsum("sik,sjk->sij", weights.W_Q2, weights.W_K2)
    return float(jnp.abs(jnp.einsum("sbqi,sij,sbkj->sbqk", stream, W_QK, stream)).max())


@pytest.mark.parametrize("scale", [1.0, 3.0, 12.0])
def test_equals_the_reduced_model(scale):
    """Also at scales where a sigmoid is saturated and a softmax has one survivor."""
    with jax.enable_x64(True):
        weights, batch = draw(3, 7, scale), batch_with_edges(5)
        rounding = 64 * np.finfo(np.float64).eps * (1 + largest_logit(weights, batch))
        ours, theirs = side_by_side(weights, batch), one_by_one(weights, batch)
    assert rounding < 1e-4
    np.testing.assert_allclose(ours[0], theirs[0], rtol=rounding)
    # Where a softmax is saturated, terms as large as the other gradients cancel in W_Q2 and W_K2.
    size = max(float(np.abs(plain).max()) for plain in theirs[1])
    for name, fast, plain in zip(Weights._fields, ours[1], theirs[1], strict=True):
        assert np.abs(plain).max() > 0, name
        np.testing.assert_allclose(fast, plain, rtol=0, atol=rounding * size, err_msg=name)


def test_parts_of_a_batch_are_the_batch(monkeypatch):
    with jax.enable_x64(True):
        weights, batch = draw(1, 3, 1.0), batch_with_edges(2)
        whole = lanes.losses_and_gradients(weights, lanes.share(batch))
        monkeypatch.setattr(lanes, "_ELEMENTS", 13 * 3 * 2)
        assert lanes._blocks(6, 13 * 3) == 3
        parts = lanes.losses_and_gradients(weights, lanes.share(batch))
    for ours, theirs in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_seeds_beyond_the_widest_are_the_same_seeds(monkeypatch):
    """Seven seeds, three at a time, and one that is left."""
    with jax.enable_x64(True):
        weights, batch = draw(1, 7, 1.0), batch_with_edges(2)
        whole = lanes.losses_and_gradients(weights, lanes.share(batch))
        monkeypatch.setattr(lanes, "_WIDEST", 3)
        parts = lanes.losses_and_gradients(weights, lanes.share(batch))
    for ours, theirs in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_no_array_leaves_the_cache():
    for batch in (64, 48, 7):
        for seeds in (1, 5, 64, lanes._WIDEST):
            parts = lanes._blocks(batch, 32 * seeds)
            assert batch % parts == 0
            assert batch // parts * 32 * seeds <= lanes._ELEMENTS
