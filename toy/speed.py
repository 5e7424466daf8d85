"""The literal flax model trained in the same way as `toy.train` trains its fast form.

It shows how much of the speed is due to the seeds being side by side and how much to the algebra
of `toy.reduced`. Seeds are taken 64 at a time: a pattern of attention is kept for each.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from toy.recipe import Recipe
from toy.tasks import Batch
from toy.transformer import Weights, apply
from toy.warmup import shown

SIDE_BY_SIDE = 64


def minibatch(recipe: Recipe, number: Int[Array, ""] | int) -> Batch:
    """The minibatch that `toy.train` shows at this step."""
    _, for_data = jax.random.split(jax.random.key(recipe.seed))
    return shown(recipe, for_data, jnp.asarray(number))


def _loss(weights: Weights, batch: Batch) -> Float[Array, ""]:
    f, _ = apply(weights, batch.x, batch.t, batch.last)
    return jnp.square(f - batch.target).mean()


@partial(jax.jit, static_argnums=0)
def _steps(recipe: Recipe, weights: Weights) -> Float[Array, "seed step"]:
    rule = optax.adam(recipe.learning_rate)

    def one(weights: Weights) -> Float[Array, " step"]:
        def step(
            state: tuple[Weights, optax.OptState], number: Int[Array, ""]
        ) -> tuple[tuple[Weights, optax.OptState], Float[Array, ""]]:
            weights, moments = state
            batch = minibatch(recipe, number)
            loss, gradient = jax.value_and_grad(_loss)(weights, batch)
            updates, moments = rule.update(gradient, moments)
            return (jax.tree.map(jnp.add, weights, updates), moments), loss

        return jax.lax.scan(step, (weights, rule.init(weights)), jnp.arange(recipe.steps))[1]

    return jax.lax.map(one, weights, batch_size=SIDE_BY_SIDE)


def train_literally(recipe: Recipe, weights: Weights) -> Float[np.ndarray, "seed step"]:
    """Each step's loss of every seed, by Adam at a constant step size on the literal model."""
    return np.asarray(_steps(recipe, weights))
