"""Does gradient descent find catch, tag, release? Many seeds at once, reproducible from one."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from toy.errors import Refused
from toy.lanes import losses_and_gradients, share
from toy.optimizers import optimizer
from toy.recipe import PRESETS, Recipe
from toy.spectrum import singular_values
from toy.transformer import Weights
from toy.warmup import pulled, rate, shown

__all__ = [
    "PRESETS", "History", "Recipe", "State", "Trained", "Training", "begin", "drawn",
    "finished", "initial_weights", "memory", "proceed", "train",
]  # fmt: skip


class History(NamedTuple):
    """What was recorded at each checkpoint."""

    step: Int[np.ndarray, " checkpoint"]
    loss: Float[np.ndarray, "seed checkpoint"]  # mean over the steps since the last checkpoint
    s_tag: Float[np.ndarray, "seed checkpoint"]
    sigma_V1: Float[np.ndarray, "seed checkpoint 2"]  # singular values of W_V1, largest first
    sigma_QK: Float[np.ndarray, "seed checkpoint 2"]  # of W_Q2 W_K2^T


class Trained(NamedTuple):
    """Final weights (seeds lead), their history, and which seeds met a loss that is not finite."""

    recipe: Recipe
    weights: Weights
    history: History
    diverged_at: Int[np.ndarray, " seed"]  # the first such step; -1: never


class State(NamedTuple):
    """What a step changes, seeds leading: the weights, the rule's memory, where a loss broke."""

    weights: Weights
    moments: optax.OptState
    diverged_at: Int[Array | np.ndarray, " seed"]


class Training(NamedTuple):
    """A training at a checkpoint: `proceed` goes on from it to the same bytes as without a stop."""

    recipe: Recipe
    state: State
    done: int  # steps
    history: History


def initial_weights(recipe: Recipe, key: Key[Array, ""]) -> Weights:
    """One seed's start: `value * identity + noise`."""
    keys = dict(zip(Weights._fields, jax.random.split(key, len(Weights._fields)), strict=True))

    def noisy(name: str, centre: Float[Array, "..."], noise: float) -> Float[Array, "..."]:
        return centre + noise * jax.random.normal(keys[name], centre.shape)

    eye, first = jnp.eye(2), jnp.eye(2, 1)
    return Weights(
        s_num=noisy("s_num", jnp.zeros(()), recipe.s_num_noise),
        s_tag=noisy("s_tag", jnp.asarray(recipe.s_tag), recipe.s_tag_noise),
        W_V1=noisy("W_V1", recipe.w_v1 * eye, recipe.w_noise),
        W_Q2=noisy("W_Q2", recipe.w_qk * eye, recipe.w_noise),
        W_K2=noisy("W_K2", recipe.w_qk * eye, recipe.w_noise),
        W_V2=noisy("W_V2", recipe.w_v2 * first, recipe.w_noise),
    )


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    return optimizer(recipe.optimizer, rate(recipe), recipe.weight_decay)


@partial(jax.jit, static_argnums=0)
def _drawn(recipe: Recipe, keys: Key[Array, " seed"]) -> Weights:
    return jax.vmap(partial(initial_weights, recipe))(keys)


def drawn(recipe: Recipe) -> Weights:
    """Where every seed starts: drawn from its own key, which depends on `seed` and its number."""
    for_weights, _ = jax.random.split(jax.random.key(recipe.seed))
    return _drawn(replace(recipe, seed=0), jax.random.split(for_weights, recipe.seeds))


@partial(jax.jit, static_argnums=0)
def _start(recipe: Recipe, weights: Weights) -> State:
    moments = jax.vmap(_optimizer(recipe).init)(weights)
    return State(weights, moments, jnp.full(jnp.shape(weights.s_tag), -1))


@partial(jax.jit, static_argnums=0)
def _advance(
    recipe: Recipe, state: State, key: Key[Array, ""], start: Int[Array, ""]
) -> tuple[State, Float[Array, " seed"]]:
    """All the steps to the next checkpoint, and every seed's mean loss on the way."""
    rule = _optimizer(recipe)

    def step(state: State, number: Int[Array, ""]) -> tuple[State, Float[Array, " seed"]]:
        losses, gradients = losses_and_gradients(state.weights, share(shown(recipe, key, number)))
        updates, moments = jax.vmap(rule.update)(gradients, state.moments, state.weights)
        newly = ~jnp.isfinite(losses) & (state.diverged_at < 0)
        diverged_at = jnp.where(newly, number, state.diverged_at)
        weights = pulled(recipe, jax.tree.map(jnp.add, state.weights, updates), number)
        return State(weights, moments, diverged_at), losses

    steps = start + jnp.arange(recipe.steps // recipe.checkpoints)
    state, losses = jax.lax.scan(step, state, steps)
    return state, losses.mean(axis=0)


def memory(recipe: Recipe, weights: Weights) -> optax.OptState:
    """The shapes of what the recipe's rule remembers of seeds with these weights."""
    return jax.eval_shape(partial(_start, recipe), weights).moments


def begin(recipe: Recipe, weights: Weights | None = None) -> Training:
    """Before the first step, from the recipe's own draw or from these weights.

    Raises `Refused` where `checkpoints` does not divide `steps`.
    """
    if recipe.checkpoints < 1 or recipe.steps % recipe.checkpoints:
        raise Refused(
            f"{recipe.checkpoints} checkpoints do not divide {recipe.steps} steps: "
            "choose a divisor, so that each covers as many steps"
        )
    state = _start(replace(recipe, seed=0), drawn(recipe) if weights is None else weights)
    n = len(state.diverged_at)
    empty = History(np.zeros(0, int), *np.zeros((2, n, 0)), *np.zeros((2, n, 0, 2)))
    return Training(recipe, state, 0, empty)


def proceed(training: Training) -> Training:
    """The same training one checkpoint later. Raises `NoSegment` for lengths without a number."""
    recipe, done = training.recipe, training.done
    _, for_data = jax.random.split(jax.random.key(recipe.seed))
    compiled = replace(recipe, seed=0)  # the key carries the seed: one compilation serves them all
    state, loss = _advance(compiled, training.state, for_data, jnp.asarray(done))
    done += recipe.steps // recipe.checkpoints
    return Training(recipe, state, done, _recorded(training.history, done, state.weights, loss))


def _recorded(
    history: History, step: int, weights: Weights, loss: Float[Array, " seed"]
) -> History:
    W_V1, W_Q2, W_K2 = (np.asarray(w) for w in (weights.W_V1, weights.W_Q2, weights.W_K2))
    with np.errstate(over="ignore", invalid="ignore"):  # of a seed that diverges: NaN is kept
        W_QK = W_Q2 @ W_K2.mT
    new = (loss, weights.s_tag, singular_values(W_V1), singular_values(W_QK))
    longer = (
        np.concatenate([field, np.asarray(value)[:, None]], axis=1, dtype=np.float32)
        for field, value in zip(history[1:], new, strict=True)
    )
    return History(np.append(history.step, step), *longer)


def finished(training: Training) -> Trained:
    """What has been trained so far, as arrays."""
    weights = Weights(*(np.asarray(field) for field in training.state.weights))
    at = np.asarray(training.state.diverged_at)
    return Trained(training.recipe, weights, training.history, at)


def train(recipe: Recipe, *, advance: Callable[[int], None] | None = None) -> Trained:
    """Train every seed of the recipe; `advance(step)` is called at each checkpoint.

    Raises `Refused` where `checkpoints` does not divide `steps`, `NoSegment` for lengths
    without a number to average.
    """
    training = begin(recipe)
    while training.done < recipe.steps:
        training = proceed(training)
        if advance is not None:
            advance(training.done)
    return finished(training)
