"""Does gradient descent find catch, tag, release? Many seeds at once, reproducible from one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from toy import reduced
from toy.errors import Refused
from toy.tasks import Distribution, averaging
from toy.transformer import Weights


@dataclass(frozen=True)
class Recipe:
    """How to train: initial values, data, optimiser. Each entry starts at its value + noise."""

    w_v1: float = -0.5
    """W_V1 starts at this multiple of the identity."""
    w_qk: float = 0.5
    """W_Q2 and W_K2 start at this multiple of the identity."""
    w_v2: float = 0.5
    """W_V2 starts at this multiple of [1, 0]^T."""
    w_noise: float = 0.1
    """Standard deviation of the Gaussian noise on those four matrices."""
    s_tag: float = 5.0
    """The tag of [SEP] starts here."""
    s_tag_noise: float = 0.0
    """Standard deviation around it."""
    s_num_noise: float = 0.1
    """Standard deviation of s_num around 0."""
    data: Distribution = "gaussian"
    """Distribution of the numbers."""
    shortest: int = 16
    """Shortest sequence."""
    longest: int = 32
    """Longest sequence; the others are padded."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Update rule."""
    learning_rate: float = 3e-2
    """Step size, or where the cosine starts."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the step size falls; a cosine ends at 0."""
    steps: int = 4000
    """Minibatches."""
    batch: int = 64
    """Sequences a minibatch; every seed sees the same ones."""
    seeds: int = 64
    """Initialisations trained side by side."""
    seed: int = 0
    """What all randomness is derived from."""
    checkpoints: int = 40
    """Points at which loss and s_tag are recorded; divides `steps`."""


PRESETS = {
    "diagonal": Recipe(),
    "default-init": Recipe(
        w_v1=0.0, w_qk=0.0, w_v2=0.0, w_noise=0.5, s_tag=0.0, s_tag_noise=1.0, s_num_noise=1.0
    ),
}
"""`diagonal` finds the mechanism; `default-init`, plain Gaussian weights, is kept as it fails."""

_OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}


class History(NamedTuple):
    """What was recorded at each checkpoint."""

    step: Int[np.ndarray, " checkpoint"]
    loss: Float[np.ndarray, "seed checkpoint"]  # mean over the steps since the last checkpoint
    s_tag: Float[np.ndarray, "seed checkpoint"]


class Trained(NamedTuple):
    """Final weights (seeds lead), their history, and which seeds met a loss that is not finite."""

    recipe: Recipe
    weights: Weights
    history: History
    diverged_at: Int[np.ndarray, " seed"]  # the first such step; -1: never


class _State(NamedTuple):
    weights: Weights
    moments: optax.OptState
    diverged_at: Int[Array, " seed"]


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
    rate = (
        optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps)
        if recipe.schedule == "cosine"
        else recipe.learning_rate
    )
    return _OPTIMIZERS[recipe.optimizer](rate)


@partial(jax.jit, static_argnums=0)
def _start(recipe: Recipe, key: Key[Array, ""]) -> _State:
    weights = jax.vmap(partial(initial_weights, recipe))(jax.random.split(key, recipe.seeds))
    moments = jax.vmap(_optimizer(recipe).init)(weights)
    return _State(weights, moments, jnp.full(recipe.seeds, -1))


@partial(jax.jit, static_argnums=0)
def _advance(
    recipe: Recipe, state: _State, key: Key[Array, ""], start: Int[Array, ""]
) -> tuple[_State, Float[Array, " seed"]]:
    """All the steps to the next checkpoint, and every seed's mean loss on the way."""
    optimizer = _optimizer(recipe)

    def step(state: _State, number: Int[Array, ""]) -> tuple[_State, Float[Array, " seed"]]:
        batch = averaging(
            jax.random.fold_in(key, number),
            batch=recipe.batch,
            shortest=recipe.shortest,
            longest=recipe.longest,
            data=recipe.data,
        )
        shared = reduced.share(batch)
        losses, gradients = jax.vmap(jax.value_and_grad(reduced.loss), in_axes=(0, None))(
            state.weights, shared
        )
        updates, moments = jax.vmap(optimizer.update)(gradients, state.moments)
        newly = ~jnp.isfinite(losses) & (state.diverged_at < 0)
        diverged_at = jnp.where(newly, number, state.diverged_at)
        weights = jax.tree.map(jnp.add, state.weights, updates)
        return _State(weights, moments, diverged_at), losses

    steps = start + jnp.arange(recipe.steps // recipe.checkpoints)
    state, losses = jax.lax.scan(step, state, steps)
    return state, losses.mean(axis=0)


def train(recipe: Recipe, *, advance: Callable[[int], None] | None = None) -> Trained:
    """Train every seed of the recipe; `advance(step)` is called at each checkpoint.

    Raises `Refused` where `checkpoints` does not divide `steps`, `NoSegment` for lengths
    without a number to average.
    """
    if recipe.checkpoints < 1 or recipe.steps % recipe.checkpoints:
        raise Refused(
            f"{recipe.checkpoints} checkpoints do not divide {recipe.steps} steps: "
            "choose a divisor, so that each covers as many steps"
        )
    for_weights, for_data = jax.random.split(jax.random.key(recipe.seed))
    compiled = replace(recipe, seed=0)  # the keys carry the seed: one compilation serves them all
    state = _start(compiled, for_weights)
    every = recipe.steps // recipe.checkpoints
    losses, tags = [], []
    for done in range(0, recipe.steps, every):
        state, loss = _advance(compiled, state, for_data, jnp.asarray(done))
        losses.append(np.asarray(loss))
        tags.append(np.asarray(state.weights.s_tag))
        if advance is not None:
            advance(done + every)
    history = History(
        step=np.arange(every, recipe.steps + 1, every),
        loss=np.stack(losses, axis=1),
        s_tag=np.stack(tags, axis=1),
    )
    weights = Weights(*(np.asarray(field) for field in state.weights))
    return Trained(recipe, weights, history, np.asarray(state.diverged_at))
