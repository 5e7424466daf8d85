"""The fast form of the model is the model: output, layer 1 and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toy import reduced, transformer
from toy.tasks import Batch, averaging, mean_after
from toy.transformer import Weights


def batch_with_edges(seed):
    """[SEP] first, [SEP] last but one, the shortest and the longest sequence, among others."""
    made = averaging(jax.random.key(seed), batch=6, shortest=2, longest=13)
    t = made.t.at[0].set(1).at[1].set(12).at[2].set(1)
    last = made.last.at[0].set(13).at[1].set(13).at[2].set(2)
    x = jax.random.normal(jax.random.key(seed + 100), made.x.shape)  # padding is not zero
    return Batch(x, t, last, mean_after(x.at[jnp.arange(6), t - 1].set(0.0), t, last))


def draw(seed):
    rng = np.random.default_rng(seed)
    shapes = [(), (), (2, 2), (2, 2), (2, 2), (2, 1)]
    scale = [1.0, 3.0, 1.0, 1.0, 1.0, 1.0]
    return Weights(
        *(jnp.asarray(rng.normal(size=s) * c) for s, c in zip(shapes, scale, strict=True))
    )


def literal_loss(weights, batch):
    f, _ = transformer.apply(weights, batch.x, batch.t, batch.last)
    return jnp.square(f - batch.target).mean()


@jax.jit
def both(weights, batch):
    """(output, stream, sink, gradient) of the fast form, and of the flax model."""
    shared = reduced.share(batch)
    fast = reduced.apply(weights, shared)
    f, seen = transformer.apply(weights, batch.x, batch.t, batch.last)
    sink = jnp.take_along_axis(seen.pattern[0, :, 0], batch.t[:, None, None] - 1, axis=2)[..., 0]
    return (
        (fast.output, fast.stream, fast.sink, jax.grad(reduced.loss)(weights, shared)),
        (f, seen.resid[1], sink, jax.grad(literal_loss)(weights, batch)),
    )


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_flax_model(seed):
    with jax.enable_x64(True):
        ours, theirs = both(draw(seed), batch_with_edges(seed))
    for fast, literal in zip(ours[:3], theirs[:3], strict=True):
        np.testing.assert_allclose(fast, literal, rtol=1e-11, atol=1e-12)
    for name, fast, literal in zip(Weights._fields, ours[3], theirs[3], strict=True):
        np.testing.assert_allclose(fast, literal, rtol=1e-9, atol=1e-11, err_msg=name)
        assert np.abs(literal).max() > 0, name
