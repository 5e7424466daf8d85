"""Secondary sinks: |cos(h_t^l, h_bos^l)| > 0.9 for some layers l of [onset, end), not for all.

Wong et al. 2025, "On the Existence and Behavior of Secondary Attention Sinks",
arXiv:2512.22213. h^l is the stream after block l. The primary sink's norm gives the span:

    onset = argmax_l (‖h_bos^l‖ − ‖h_bos^(l−1)‖),  end = argmin_{l > onset} of the same difference.

Such a span exists whether there is a primary sink or not, and one outlier feature of all tokens
lifts every cosine over the threshold: it means something only where the norm is `raised`.

A later token is *sink-like* at l of [onset, end) when its cosine to the primary sink passes the
threshold there. Its creation is the first such layer, its lifetime their number (contiguous or
not), its level the pair of both. The release tells classes by layers counted absolutely, which
puts every token of a model of 16 layers or fewer in one class; by default they are told here by
the lifetime's share of the span.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mech.errors import BadInput

COSINE = 0.9
BRIEF, LASTING = 0.1, 0.75
"""A lifetime up to BRIEF of the span is noise; from LASTING on it is the primary sink's kind."""
RAISED = 3.0
"""Norm over the other tokens' median from which the first token is in a phase of being a sink."""
KINDS = ("noise", "secondary", "primary-like")
Rule = Literal["relative", "release"]


class Span(NamedTuple):
    """Layers onset, …, end − 1."""

    onset: int
    end: int

    @property
    def layers(self) -> int:
        """How many they are; 0 where there is no primary sink."""
        return self.end - self.onset


class Secondary(NamedTuple):
    """Tokens that are sink-like anywhere in the span, by position, one entry each.

    depth = (creation − onset) / layers of the span, in [0, 1). kind indexes KINDS.
    """

    token: Int[np.ndarray, " found"]
    creation: Int[np.ndarray, " found"]
    lifetime: Int[np.ndarray, " found"]
    contiguous: Bool[np.ndarray, " found"]
    depth: Float[np.ndarray, " found"]
    kind: Int[np.ndarray, " found"]


def span(norm: Float[np.ndarray, " layer"], entering: float | None = None) -> Span:
    """[onset, end) of the primary sink, from the norm of its state after each block.

    With `entering`, its norm before block 0, that block can be the onset. Without it the
    embedding is left out, as in the release, and a sink that block 0 writes gets a wrong span.
    Unlike in the release, a norm that never falls after the onset lasts to the end, and one that
    never rises has no span (onset = end = the number of layers). Raises BadInput below three
    layers.
    """
    layers = len(norm)
    if layers < 3:
        raise BadInput(f"{layers} layers have no onset and end: the span needs at least three")
    rise = np.diff(norm, prepend=norm[0] if entering is None else entering)
    if rise.max() <= 0:
        return Span(layers, layers)
    onset = int(rise.argmax())
    after = rise[onset + 1 :]
    if len(after) == 0 or after.min() >= 0:
        return Span(onset, layers)
    return Span(onset, onset + int(after.argmin()) + 1)


def phases(ratio: Float[np.ndarray, " layer"], factor: float = RAISED) -> list[Span]:
    """Maximal runs of layers in which the primary sink's norm is above `factor` · the median's.

    `ratio` is its norm over the median norm of the other tokens. The largest rise alone would
    hide an earlier, smaller phase; a model may write its primary sink twice.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ratio > factor, [False]]).astype(int)))
    return [Span(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def sink_like(
    cosine: Float[np.ndarray, "layer seq"], where: Span, threshold: float = COSINE
) -> Bool[np.ndarray, "layer seq"]:
    """|cos(h_t^l, h_bos^l)| > threshold, within the span. The primary sink itself is too."""
    inside = np.zeros(len(cosine), bool)
    inside[where.onset : where.end] = True
    return (np.abs(cosine) > threshold) & inside[:, None]


def secondary(
    cosine: Float[np.ndarray, "layer seq"],
    where: Span,
    allowed: Bool[np.ndarray, " seq"],
    *,
    threshold: float = COSINE,
    rule: Rule = "relative",
) -> Secondary:
    """The sink-like tokens among `allowed` (`reach.later_keys`: not the first, well supported)."""
    flagged = sink_like(cosine, where, threshold) & allowed
    token = np.flatnonzero(flagged.any(axis=0))
    flagged = flagged[:, token]
    lifetime = flagged.sum(axis=0)
    creation = flagged.argmax(axis=0)
    last = len(flagged) - 1 - flagged[::-1].argmax(axis=0)
    return Secondary(
        token=token,
        creation=creation,
        lifetime=lifetime,
        contiguous=last - creation + 1 == lifetime,
        depth=(creation - where.onset) / max(where.layers, 1),
        kind=classify(lifetime, where, len(cosine), rule),
    )


def classify(
    lifetime: Int[np.ndarray, " found"], where: Span, layers: int, rule: Rule = "relative"
) -> Int[np.ndarray, " found"]:
    """The class of each lifetime, as an index into KINDS.

    relative: secondary iff BRIEF < lifetime / (end − onset) < LASTING. release: iff
    4 < lifetime < L − 15, and primary-like from L − 15 on. Both agree on most of a model of 40
    to 64 layers; with L ≤ 16 the release's rule calls every flagged token primary-like, and with
    L = 22 leaves lifetimes 5 and 6 to the secondary ones.
    """
    if rule == "release":
        brief, lasting = lifetime <= 4, lifetime >= layers - 15
    else:
        share = lifetime / max(where.layers, 1)
        brief, lasting = share <= BRIEF, share >= LASTING
    return np.where(lasting, 2, np.where(brief, 0, 1))


class Likeness(NamedTuple):
    """The largest |cosine| within the span, averaged over three kinds of token; NaN for none.

    same_id: tokens of the same id as a found one that were not found themselves, the control
    that tells what a token is from where it stands. others: the rest.
    """

    found: float
    same_id: float
    others: float


def likeness(
    cosine: Float[np.ndarray, "layer seq"],
    where: Span,
    allowed: Bool[np.ndarray, " seq"],
    ids: Int[np.ndarray, " seq"],
    token: Int[np.ndarray, " found"],
) -> Likeness:
    """How alike the primary sink are the found tokens, their namesakes, and the others."""
    if where.layers == 0:
        return Likeness(float("nan"), float("nan"), float("nan"))
    largest = np.abs(cosine[where.onset : where.end]).max(axis=0)
    found = np.zeros(len(ids), bool)
    found[token] = True
    same = np.isin(ids, ids[token]) & ~found & allowed
    return Likeness(*(_mean(largest[g]) for g in (found, same, allowed & ~found & ~same)))


def written_by_mlp(
    attn_along: Float[np.ndarray, "layer seq"],
    mlp_along: Float[np.ndarray, "layer seq"],
    found: Secondary,
) -> Float[np.ndarray, " found"]:
    """mlp·u / (attn·u + mlp·u) at the creation layer: the MLP's share of the rise along u.

    u is the primary sink's direction after that block, and attn·u, mlp·u what the two writes of
    the block add along it. Above 1 where attention writes against it.
    """
    attn, mlp = (x[found.creation, found.token] for x in (attn_along, mlp_along))
    total = attn + mlp
    return np.divide(mlp, total, out=np.full(total.shape, np.nan), where=total != 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
