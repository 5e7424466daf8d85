"""The same probes on toys whose truth is a theorem: [SEP] is the sink and the tag."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from experiments.recovery import Tally, compare
from mech.probes import agreement, outliers, sinks
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


def recover_toy(trace: ToyTrace, t: int, *, sink: bool, outlier: int | None) -> list[Tally]:
    """Sinks of both layers, the outlier dimension between them, and the depths that are tagged.

    t is [SEP]'s position from 1. `sink`: whether layer 1 rests on [SEP]; `outlier`: the
    coordinate of the tag, where it is one; the tag itself is there after layer 1 either way.
    """
    alpha = sinks.score(sinks.received_of(trace))
    where = sinks.guarded(alpha.shape[-1])
    where[0] = True
    truth = np.zeros(alpha.shape, bool)
    truth[0, :, 0, t - 1] = sink
    tallies = [compare("sinks", truth & where, sinks.sinks(alpha) & where)]
    if outlier is not None:
        axis = np.arange(trace.resid.shape[-1]) == outlier
        seen = outliers.int8_outlier_dims(trace.resid[1:2])
        tallies.append(compare("outlier feature: int8 rule", axis, seen))
    return [*tallies, _tagged(trace, t)]


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
    return recover_toy(forward(weights, x, t)[1], t, sink=True, outlier=1)


def trained(seeds: int, steps: int, seed: int) -> list[list[Tally]]:
    """Every seed of the default recipe that found the mechanism, on longer sequences."""
    run = train(replace(Recipe(), seeds=seeds, steps=steps, seed=seed))
    tallies = []
    for index in np.flatnonzero(diagnose(run, sequences=512).found):
        weights = Weights(*(np.asarray(field[index], np.float64) for field in run.weights))
        x, t = _drawn(int(index))
        tallies.append(recover_toy(forward(weights, x, t)[1], t, sink=True, outlier=1))
    return tallies


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
        tallies = recover_toy(larger(shape, weights, batch)[1], t, sink=sink, outlier=None)
        # The flag is no louder than the numbers, so nothing says that clusters would show it.
        found[name] = tallies if sink else tallies[:1]
    return found
