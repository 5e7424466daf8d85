"""Train the larger toy: many seeds of one shape side by side, reproducible from one seed."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from toy.errors import Refused
from toy.larger.model import predict
from toy.larger.shape import Shape
from toy.larger.weights import Weights, initial_weights
from toy.tasks import Batch, averaging


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, and how: AdamW, linear warm-up, cosine to 0, clipped gradients."""

    shape: Shape = field(default_factory=Shape)
    """The transformer."""
    shortest: int = 16
    """Shortest sequence."""
    longest: int = 32
    """Longest sequence; the others are padded."""
    learning_rate: float = 3e-3
    """Step size at the end of the warm-up."""
    warm_up: int = 100
    """Steps until then."""
    weight_decay: float = 0.0
    """Of AdamW; 0 is Adam."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    steps: int = 4000
    """Minibatches."""
    batch: int = 64
    """Sequences a minibatch; every seed sees the same ones."""
    seeds: int = 8
    """Initialisations trained side by side."""
    seed: int = 0
    """What all randomness is derived from."""
    checkpoints: int = 20
    """Points at which the loss is recorded; divides `steps`."""


class History(NamedTuple):
    """What was recorded at each checkpoint."""

    step: Int[np.ndarray, " checkpoint"]
    loss: Float[np.ndarray, "seed checkpoint"]  # mean over the steps since the last checkpoint


class Trained(NamedTuple):
    """Weights before and after (seeds lead) and the loss on the way."""

    recipe: Recipe
    start: Weights
    weights: Weights
    history: History


class _State(NamedTuple):
    weights: Weights
    moments: optax.OptState


def task(recipe: Recipe, key: Key[Array, ""], batch: int) -> Batch:
    """Gaussian numbers, lengths and [SEP] as in the small toy."""
    return averaging(key, batch=batch, shortest=recipe.shortest, longest=recipe.longest)


def loss(shape: Shape, weights: Weights, batch: Batch) -> Float[Array, ""]:
    """E (f - m)^2."""
    f = predict(shape, weights, batch.x, batch.t, batch.last)
    return jnp.square(f - batch.target).mean()


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(
        0.0, recipe.learning_rate, min(recipe.warm_up, recipe.steps // 2), recipe.steps
    )
    return optax.chain(
        optax.clip_by_global_norm(recipe.clip),
        optax.adamw(rate, weight_decay=recipe.weight_decay),
    )


@partial(jax.jit, static_argnums=0)
def _start(recipe: Recipe, key: Key[Array, ""]) -> _State:
    weights = jax.vmap(partial(initial_weights, recipe.shape))(jax.random.split(key, recipe.seeds))
    return _State(weights, jax.vmap(_optimizer(recipe).init)(weights))


@partial(jax.jit, static_argnums=0)
def _advance(
    recipe: Recipe, state: _State, key: Key[Array, ""], start: Int[Array, ""]
) -> tuple[_State, Float[Array, " seed"]]:
    """All the steps to the next checkpoint, and every seed's mean loss on the way."""
    optimizer = _optimizer(recipe)

    def step(state: _State, number: Int[Array, ""]) -> tuple[_State, Float[Array, " seed"]]:
        batch = task(recipe, jax.random.fold_in(key, number), recipe.batch)

        def one(state: _State) -> tuple[_State, Float[Array, ""]]:
            value, gradient = jax.value_and_grad(partial(loss, recipe.shape))(state.weights, batch)
            updates, moments = optimizer.update(gradient, state.moments, state.weights)
            return _State(jax.tree.map(jnp.add, state.weights, updates), moments), value

        return jax.vmap(one)(state)

    state, losses = jax.lax.scan(
        step, state, start + jnp.arange(recipe.steps // recipe.checkpoints)
    )
    return state, losses.mean(axis=0)


def train(recipe: Recipe, *, advance: Callable[[int], None] | None = None) -> Trained:
    """Train every seed of the recipe; `advance(step)` is called at each checkpoint.

    Raises `Refused` where `checkpoints` does not divide `steps`, and `NoSegment` for lengths
    without a number to average.
    """
    if recipe.checkpoints < 1 or recipe.steps % recipe.checkpoints:
        raise Refused(
            f"{recipe.checkpoints} checkpoints do not divide {recipe.steps} steps: give a divisor"
        )
    for_weights, for_data = jax.random.split(jax.random.key(recipe.seed))
    compiled = replace(recipe, seed=0)  # the keys carry the seed: one compilation serves them all
    state = _start(compiled, for_weights)
    start = _plain(state.weights)
    every, losses = recipe.steps // recipe.checkpoints, []
    for done in range(0, recipe.steps, every):
        state, mean = _advance(compiled, state, for_data, jnp.asarray(done))
        losses.append(np.asarray(mean))
        if advance is not None:
            advance(done + every)
    history = History(np.arange(every, recipe.steps + 1, every), np.stack(losses, axis=1))
    return Trained(recipe, start, _plain(state.weights), history)


def _plain(weights: Weights) -> Weights:
    return Weights(*(np.asarray(field) for field in weights))
