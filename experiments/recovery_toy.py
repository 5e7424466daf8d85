"""The same probes on toys whose truth is a theorem: [SEP] is the sink and the tag."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.recovery import Tally, compare
from mech.probes import agreement, outliers, sinks
from mech.probes.tags import tags
from toy.diagnose import diagnose
from toy.larger import plant
from toy.larger.observe import forward as larger
from toy.larger.shape import Shape
from toy.recipe import Recipe
from toy.tasks import Batch, mean_after
from toy.train import train
from toy.transformer import ToyTrace, Weights, forward, theorem_weights

SEQ, BATCH = 128, 4
"""Long enough for at least 58 tokens after [SEP]: the mean of n < 44 gives its first a sink."""
EARLIEST, LATEST = 20, 70


def recover_toy(
    trace: ToyTrace, t: int, *, sink: bool, tag: Float[np.ndarray, " d_model"] | None
) -> list[Tally]:
    """Sinks of both layers, the tag that layer 1 writes, and the depths that are tagged.

    t is [SEP]'s position from 1. `sink`: whether layer 1 rests on [SEP]. `tag`: what it then
    writes into every later token where the stream's coordinates are the head's, else None.
    """
    alpha = sinks.score(sinks.received_of(trace))
    where = sinks.guarded(alpha.shape[-1])
    where[0] = True
    truth = np.zeros(alpha.shape, bool)
    truth[0, :, 0, t - 1] = sink
    tallies = [compare("sinks", truth & where, sinks.sinks(alpha) & where)]
    if tag is not None:
        tallies += [_written(trace, t, tag), _outlier(trace, t, tag)]
    return [*tallies, _tagged(trace, t)]


def _written(trace: ToyTrace, t: int, tag: Float[np.ndarray, " d_model"]) -> Tally:
    """A v_SEP is the whole output of every later token, and points where the tag points."""
    found = 0
    for pattern, z in zip(trace.pattern[0], trace.z[0], strict=True):
        seen = tags(pattern[:, :, t - 1 : t], tag[None, None], z, np.eye(len(tag))[None])
        mine = seen.norm[0, t:, 0] / np.linalg.norm(tag), seen.share[0, t:, 0], seen.along[0, t:, 0]
        found += all(bool((np.abs(part - 1) < 0.05).all()) for part in mine)
    batch = trace.pattern.shape[1]
    return Tally("tags: norm, share, direction", batch, found, batch - found)


def _outlier(trace: ToyTrace, t: int, tag: Float[np.ndarray, " d_model"]) -> Tally:
    """The dimensions that the rule must name: those that the tag takes beyond its limit."""
    later = np.arange(trace.resid.shape[2]) >= t
    exact = trace.resid[0] + tag * later[:, None]
    large = np.abs(exact[:, later]) >= outliers.LARGE
    truth = large.mean(axis=(0, 1)) * later.mean() >= outliers.IN_TOKENS
    return compare(
        "outlier feature: int8 rule", truth, outliers.int8_outlier_dims(trace.resid[1:2])
    )


def _tagged(trace: ToyTrace, t: int) -> Tally:
    """Where the tokens on both sides of [SEP] lie apart: after layer 1, not before it."""
    numbers = np.delete(trace.resid, t - 1, axis=2)
    side = (np.arange(numbers.shape[2]) >= t - 1).astype(int)
    seen = np.zeros(numbers.shape[:2], bool)
    for depth, row in np.ndindex(*seen.shape):
        found = agreement.grouping(numbers[depth, row], side, draws=20)
        seen[depth, row] = found.ari > 0.9 > found.ari_contiguous
    after = np.broadcast_to(np.arange(len(seen))[:, None] == 1, seen.shape)
    # What layer 2 adds is the answer itself, which may hide the tag or not.
    return compare("depths at which the stream is tagged", after[:2], seen[:2])


def _drawn(seed: int) -> tuple[np.ndarray, int]:
    rng = np.random.default_rng([seed, 5])
    return rng.uniform(-1, 1, (BATCH, SEQ)), int(rng.integers(EARLIEST, LATEST))


def theorem(seed: int) -> list[Tally]:
    """The theorem's weights with an embedding scale drawn from [12, 60]."""
    x, t = _drawn(seed)
    weights = theorem_weights(float(np.random.default_rng([seed, 6]).uniform(12, 60)))
    return recover_toy(forward(weights, x, t)[1], t, sink=True, tag=_tag(weights))


def trained(seeds: int, steps: int, seed: int) -> list[list[Tally]]:
    """Every seed of the default recipe that found the mechanism, on longer sequences."""
    run = train(replace(Recipe(), seeds=seeds, steps=steps, seed=seed))
    tallies = []
    for index in np.flatnonzero(diagnose(run, sequences=512).found):
        weights = Weights(*(np.asarray(field[index], np.float64) for field in run.weights))
        x, t = _drawn(int(index))
        trace = forward(weights, x, t)[1]
        tallies.append(recover_toy(trace, t, sink=True, tag=_tag(weights)))
    return tallies


def _tag(weights: Weights) -> Float[np.ndarray, " d_model"]:
    """E_SEP W_V1."""
    return np.array([float(weights.s_num), -float(weights.s_tag)]) @ np.asarray(weights.W_V1)


def routes(seed: int) -> dict[str, list[Tally]]:
    """An ordinary transformer with two routes put in by hand: one has a sink, one has none."""
    shape = Shape(d_model=16, heads=2, d_mlp=8, norm=False, longest=SEQ)
    x, t = _drawn(seed)
    where, last = jnp.full(BATCH, t), jnp.full(BATCH, SEQ)
    numbers = jnp.asarray(x)
    batch = Batch(numbers, where, last, mean_after(numbers, where, last))
    found = {}
    for name, weights, sink in [
        ("catch, tag, release", plant.theorem(shape, 30.0, seed=seed), True),
        ("a flag of 1/i, no sink", plant.uniform(shape, seed=seed), False),
    ]:
        tallies = recover_toy(larger(shape, weights, batch)[1], t, sink=sink, tag=None)
        # The flag is no louder than the numbers, so nothing says that clusters would show it.
        found[name] = tallies if sink else tallies[:1]
    return found
