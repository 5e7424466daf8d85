"""When the matrices become of rank one, and what W_V1's other direction is for.

W_V1 acts on (A1 E)_i = [(1 - a_i) c_i + a_i s_num, -(1 - a_i) - a_i s_tag], c_i the mean number
that row i sees. After [SEP] a_i is nearly 1, so every token there gets the same

    [s_num W11 - s_tag W21,  s_num W12 - s_tag W22]:

a constant on the numbers and the tag. The constant has to cancel what W_V2 reads of the tag; beyond
that W11 and W12 meet only 1 - a_i. The theorem needs W22 alone. Whether training does is asked by
setting entries to 0, and then once more with the best constant given back.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from toy.laws.measure import centred, look, unexplained
from toy.laws.tails import draw
from toy.spectrum import effective_rank
from toy.train import History, Trained
from toy.transformer import Weights

LOW = 0.1
"""sigma_2 / sigma_1 below which a matrix counts as of rank one; also the FVU of `found`."""


class Zeroed(NamedTuple):
    """Unexplained variance of every seed with entries of W_V1 set to 0."""

    name: str
    fvu: Float[np.ndarray, " seed"]
    centred: Float[np.ndarray, " seed"]  # with the best constant added to the output
    removed: Float[np.ndarray, " seed"]  # Frobenius norm of what was removed, of W_V1's


class Ranks(NamedTuple):
    """First checkpoint at which each holds for good, in steps; inf: never."""

    loss_low: Float[np.ndarray, " seed"]  # training loss below LOW of the target's variance
    QK_low: Float[np.ndarray, " seed"]
    V1_low: Float[np.ndarray, " seed"]
    ratio_QK: Float[np.ndarray, " seed"]  # at the end
    ratio_V1: Float[np.ndarray, " seed"]
    rank_QK: Float[np.ndarray, " seed"]  # effective: e to the entropy of the singular values
    rank_V1: Float[np.ndarray, " seed"]
    zeroed: list[Zeroed]


ENTRIES = {
    "as trained": np.array([[1, 1], [1, 1]]),
    "only [2,2] kept": np.array([[0, 0], [0, 1]]),
    "[1,1] zeroed": np.array([[0, 1], [1, 1]]),
    "[1,2] zeroed": np.array([[1, 0], [1, 1]]),
    "[2,1] zeroed": np.array([[1, 1], [0, 1]]),
    "first row zeroed": np.array([[0, 0], [1, 1]]),
    "[2,2] zeroed (control)": np.array([[1, 1], [1, 0]]),
}
"""What of W_V1 is left, from 1."""


def since(
    holds: Bool[np.ndarray, "seed checkpoint"], steps: Float[np.ndarray, " checkpoint"]
) -> Float[np.ndarray, " seed"]:
    """The first step from which it holds to the end; inf where it does not hold at the end."""
    broken = ~holds[:, ::-1]
    lasting = np.where(broken.any(axis=1), broken.argmax(axis=1), holds.shape[1])
    first = holds.shape[1] - lasting
    return np.where(lasting > 0, np.append(steps, np.inf)[first], np.inf)


def ratio(sigma: Float[np.ndarray, "*any 2"]) -> Float[np.ndarray, "*any"]:
    """sigma_2 / sigma_1."""
    return np.asarray(sigma[..., 1] / sigma[..., 0])


def zeroed(weights: Weights, *, tail: str, sequences: int, seed: int) -> list[Zeroed]:
    """Every seed with each of `ENTRIES`, on the same sequences."""
    drawn = draw(np.random.default_rng(seed), tail, sequences)
    W_V1 = np.asarray(weights.W_V1, dtype=np.float64)
    size = np.linalg.norm(W_V1, axis=(1, 2))
    found = []
    for name, kept in ENTRIES.items():
        output = look(weights._replace(W_V1=W_V1 * kept), drawn).output
        gone = np.linalg.norm(W_V1 * (1 - kept), axis=(1, 2)) / size
        best = unexplained(centred(output, drawn), drawn)
        found.append(Zeroed(name, unexplained(output, drawn), best, gone))
    return found


def ranks(
    trained: Trained, which: Bool[np.ndarray, " seed"], *, sequences: int = 2048, seed: int = 0
) -> Ranks:
    """When loss and ranks fall in the seeds `which`, and what the zeroed entries cost them."""
    history = History(trained.history.step, *(field[which] for field in trained.history[1:]))
    recipe = trained.recipe
    lengths = range(recipe.shortest, recipe.longest + 1)
    variance = np.mean([np.mean(1 / np.arange(1, T)) for T in lengths])
    steps = history.step.astype(np.float64)
    weights = Weights(*(np.asarray(field)[which] for field in trained.weights))
    return Ranks(
        loss_low=since(history.loss < LOW * variance, steps),
        QK_low=since(ratio(history.sigma_QK) < LOW, steps),
        V1_low=since(ratio(history.sigma_V1) < LOW, steps),
        ratio_QK=ratio(history.sigma_QK)[:, -1],
        ratio_V1=ratio(history.sigma_V1)[:, -1],
        rank_QK=effective_rank(history.sigma_QK[:, -1]),
        rank_V1=effective_rank(history.sigma_V1[:, -1]),
        zeroed=zeroed(weights, tail=recipe.data, sequences=sequences, seed=seed),
    )
