"""A first phase that makes a seed forget an unlucky draw: what it shows, and where it pulls.

During the first `warm_up` of the steps, of size a, and beside what the rule does,

    s_tag += a lift,   s_num *= 1 - a decay_s_num,   W *= 1 - a decay_matrices  (all four)

and during the first `first_share` of them the numbers come from `first_data`. Afterwards, and in
every evaluation, the task is the recipe's own.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from toy.recipe import Recipe
from toy.tasks import Batch, Distribution, averaging
from toy.transformer import Weights


def rate(recipe: Recipe) -> optax.Schedule:
    """The step size at a step."""
    if recipe.schedule == "cosine":
        return optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps)
    return optax.constant_schedule(recipe.learning_rate)


def shown(recipe: Recipe, key: Key[Array, ""], number: Int[Array, ""]) -> Batch:
    """The minibatch of a step. Raises `NoSegment` for lengths without a number."""

    def drawn(data: Distribution) -> Batch:
        return averaging(
            jax.random.fold_in(key, number),
            batch=recipe.batch,
            shortest=recipe.shortest,
            longest=recipe.longest,
            data=data,
        )

    if recipe.first_share == 0 or recipe.first_data == recipe.data:
        return drawn(recipe.data)
    first = number < recipe.first_share * recipe.steps
    return jax.lax.cond(first, lambda: drawn(recipe.first_data), lambda: drawn(recipe.data))


def pulled(recipe: Recipe, weights: Weights, number: Int[Array, ""]) -> Weights:
    """The weights after the pulls of a step; the same object without a warm-up."""
    if recipe.warm_up == 0:
        return weights
    size = rate(recipe)(number) * (number < recipe.warm_up * recipe.steps)

    def kept(decay: float, field: Float[Array, "..."]) -> Float[Array, "..."]:
        return field * (1 - size * decay)

    matrices = {
        name: kept(recipe.decay_matrices, getattr(weights, name))
        for name in ("W_V1", "W_Q2", "W_K2", "W_V2")
    }
    return weights._replace(
        s_num=kept(recipe.decay_s_num, jnp.asarray(weights.s_num)),
        s_tag=weights.s_tag + size * recipe.lift,
        **matrices,
    )
