"""α_k = (1 / (T − k + 1)) Σ_{i ≥ k} A_{i,k}, and a sink is a key with α_k > ε  (equation 1).

Gu et al. 2025, "When Attention Sink Emerges in Language Models", arXiv:2410.10781; the count
over (layer, head, token) at ε = 0.1 follows Zhang & Papyan 2025, "Attention Sinks and Outlier
Features: A 'Catch, Tag, and Release' Mechanism for Embeddings". k counts from 1 there; here
token t = k − 1.

Two artefacts of equation 1 are kept apart. The divisor of the last keys is small, so any head
that looks at itself or its neighbours makes "sinks" of them: `later` leaves the last SUPPORT
keys out. And a head without any preference gives its first key H_T / T (H_T the harmonic
number), which exceeds 0.1 for T < 44: counting is refused below SHORTEST tokens.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from mech.errors import BadInput

EPSILON = 0.1
SUPPORT = 16
SHORTEST = 64


class SinkCount(NamedTuple):
    """Sinks a sequence, of every query head: means over the batch.

    first: the first token (0 to 1). later: tokens 0 < t < T − support. later_raw: all t > 0.
    total_raw: all t, as the papers count.
    """

    first: Float[np.ndarray, "layer head"]
    later: Float[np.ndarray, "layer head"]
    later_raw: Float[np.ndarray, "layer head"]
    total_raw: Float[np.ndarray, "layer head"]


class Agreement(NamedTuple):
    """Share of the reference's sinks that were found, and of the found that the reference has.

    NaN where there is nothing to take a share of.
    """

    first_recall: float
    first_precision: float
    later_recall: float
    later_precision: float


@runtime_checkable
class Attentive(Protocol):
    """Any trace with a `pattern`: ours, or the toy's of the same fields."""

    @property
    def pattern(self) -> Float[np.ndarray, "layer batch head query key"]: ...


def received_of(trace: Attentive) -> Float[np.ndarray, "layer batch head key"]:
    """Σ_q pattern[q, k]: the attention that each key received, from a whole trace."""
    return trace.pattern.sum(axis=-2)


def score(
    received: Float[np.ndarray, "*axes head key"],
    reach: Int[np.ndarray, "*axes key"] | None = None,
) -> Float[np.ndarray, "*axes head key"]:
    """α of every key: what it received over the number of queries that could see it.

    Equation 1 counts all later queries, also those that a sliding window keeps from the key:
    there α is a lower bound of the mean over the queries that reach it. With `reach`, the number
    of queries that do, the same for every head, α is that mean; 0 for a key that nobody sees.

    Examples:
        >>> received = np.array([[3.0, 0.5, 0.5]])  # by three keys, from three, two and one queries
        >>> score(received).tolist()
        [[1.0, 0.25, 0.5]]
    """
    if reach is None:
        seq = received.shape[-1]
        return received / np.arange(seq, 0, -1, dtype=received.dtype)
    seen = np.maximum(reach, 1).astype(received.dtype)[..., None, :]
    return np.where(reach[..., None, :] > 0, received / seen, 0).astype(received.dtype)


def sinks(
    alpha: Float[np.ndarray, "*axes key"], epsilon: float = EPSILON
) -> Bool[np.ndarray, "*axes key"]:
    """α > ε, entry by entry."""
    return alpha > epsilon


def guarded(seq: int, support: int = SUPPORT) -> Bool[np.ndarray, " key"]:
    """0 < t < T − support: the later tokens that at least support + 1 queries can see.

    Examples:
        >>> guarded(20, support=16).nonzero()[0].tolist()
        [1, 2, 3]
    """
    token = np.arange(seq)
    return (token > 0) & (token < seq - support)


def count_sinks(
    alpha: Float[np.ndarray, "layer batch head key"],
    *,
    epsilon: float = EPSILON,
    support: int = SUPPORT,
) -> SinkCount:
    """How many sinks each head has in a sequence; BadInput below SHORTEST tokens.

    Examples:
        >>> alpha = np.zeros((1, 1, 1, 64))  # layer batch head key
        >>> alpha[..., [0, 5, 63]] = 0.5
        >>> count = count_sinks(alpha)
        >>> count.first.item(), count.later.item(), count.total_raw.item()
        (1.0, 1.0, 3.0)
    """
    seq = alpha.shape[-1]
    if seq < SHORTEST:
        raise BadInput(
            f"sinks are not counted on {seq} tokens: below {SHORTEST} a head without preference "
            "nears the threshold; give longer sequences, or read `score` alone"
        )
    found = sinks(alpha, epsilon)
    total = found.sum(axis=-1)
    return SinkCount(
        first=found[..., 0].mean(axis=1),
        later=found[..., guarded(seq, support)].sum(axis=-1).mean(axis=1),
        later_raw=(total - found[..., 0]).mean(axis=1),
        total_raw=total.mean(axis=1),
    )


def agreement(
    found: Bool[np.ndarray, "*axes key"],
    reference: Bool[np.ndarray, "*axes key"],
    support: int = SUPPORT,
) -> Agreement:
    """Recall and precision of two sets of sinks, such as a compressed model's and the dense one's.

    First tokens and guarded later tokens apart: the first are so many that they would hide the
    others.

    Examples:
        >>> reference = np.zeros(64, dtype=bool)
        >>> reference[[0, 5, 9]] = True
        >>> found = reference.copy()
        >>> found[9] = False
        >>> agreement(found, reference).later_recall
        0.5
    """
    later = guarded(found.shape[-1], support)
    return Agreement(
        *_recall_precision(found[..., 0], reference[..., 0]),
        *_recall_precision(found[..., later], reference[..., later]),
    )


def _recall_precision(found: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    both = int((found & reference).sum())
    return _share(both, int(reference.sum())), _share(both, int(found.sum()))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
