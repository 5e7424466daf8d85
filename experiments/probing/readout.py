"""Can a straight line read in the stream that a later sink caught a token? Beside position alone.

Ridge regression on y = ±1 (caught by a later sink, by the first token), fitted on some sequences
and asked on others, with every sequence and class of the same weight. Groups of k-means see the
widest directions only; this finds a narrow one if it is the same in all sequences. Sinks cut a
text into segments, so the null is the same regression on the position alone, and the control the
stream that enters the block: what can be read there is not this block's tag.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from experiments.intervals import Interval, interval
from experiments.report import Section, Table

FOLDS = 5
RIDGE = 0.1  # of a feature's own variance
FEWEST = 6  # sequences, as in release
BUMP = 8  # tokens: the width of what the null knows a position by


class At(NamedTuple):
    """Balanced accuracy on unseen sequences after `depth` blocks; the differences are paired."""

    depth: int
    accuracy: Interval
    above_position: Interval
    above_input: Interval


class Readout(NamedTuple):
    """`at` begins with the stream that enters the block `layer`."""

    layer: int
    position: Interval
    at: list[At]


def read_out(
    late: Sequence[Int[np.ndarray, " seq"] | None],
    states: Float[np.ndarray, "depth sequence seq d_model"],
    layer: int,
) -> Readout | None:
    """late[i]: 1 for tokens that a later sink caught, 0 by the first token's, -1 for others.

    None below FEWEST sequences with both.
    """
    kept = [i for i, each in enumerate(late) if each is not None and {0, 1} <= {*each.tolist()}]
    if len(kept) < FEWEST:
        return None
    chosen = [late[i] for i in kept]
    labels = [each[each >= 0] for each in chosen if each is not None]
    places = [np.flatnonzero(each >= 0) for each in chosen if each is not None]
    centres = np.arange(0, states.shape[2], BUMP)
    bumps = [np.exp(-(((at[:, None] - centres) / BUMP) ** 2)) for at in places]
    position = accuracies(bumps, labels)
    last = len(states) - 1
    depths = sorted({layer, *(min(layer + k, last) for k in (1, 2, 4)), (layer + last) // 2, last})
    found = [
        accuracies([states[depth, i, at] for i, at in zip(kept, places, strict=True)], labels)
        for depth in depths
    ]
    rows = [
        At(depth, interval(each), interval(each - position), interval(each - found[0]))
        for depth, each in zip(depths, found, strict=True)
    ]
    return Readout(layer, interval(position), rows)


def accuracies(
    features: Sequence[Float[np.ndarray, "_ d"]], labels: Sequence[Int[np.ndarray, " _"]]
) -> Float[np.ndarray, " sequence"]:
    """Of every sequence, by w = (XᵀCX + λ)⁻¹ XᵀCy of the folds that it is not in: mean recall.

    Rows of X are scaled to length 1, as a norm before a block does, then columns to variance 1.
    """
    rows = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in features]
    every = np.concatenate(rows).astype(np.float64)
    mean, width = every.mean(axis=0), np.maximum(every.std(axis=0), 1e-9)
    rows = [np.hstack([(x - mean) / width, np.ones((len(x), 1))]) for x in rows]
    weight = [1 / np.bincount(each)[each] for each in labels]
    found = np.empty(len(rows))
    for fold in range(FOLDS):
        others = [i for i in range(len(rows)) if i % FOLDS != fold]
        x, y, c = (np.concatenate([a[i] for i in others]) for a in (rows, labels, weight))
        gram = x.T @ (c[:, None] * x) + RIDGE * c.sum() * np.eye(x.shape[1])
        w = np.linalg.solve(gram, x.T @ (c * (2 * y - 1)))
        for i in range(fold, len(rows), FOLDS):
            right = (rows[i] @ w > 0) == (labels[i] > 0)
            found[i] = np.mean([right[labels[i] == label].mean() for label in (0, 1)])
    return found


def section(found: Readout) -> Section:
    """The table by depth, and whether what the block writes can be read after it."""
    before, *after = found.at
    new = [row for row in after if min(row.above_input.low, row.above_position.low) > 0]
    words = (
        f"A later sink caught the token, or the first one: a straight line, fitted on other "
        f"sequences, says which with balanced accuracy {before.accuracy} in the stream that enters "
        f"block {found.layer}; the position alone says it with {found.position}. "
    )
    depths = ", ".join(str(row.depth) for row in new)
    words += (
        f"Above both it is readable after {depths} blocks, of the depths asked."
        if new
        else "At none of the depths asked behind it is the line above both: not shown."
    )
    rows = [
        (str(row.depth), *(map(_span, (row.accuracy, row.above_position, row.above_input))))
        for row in found.at
    ]
    caption = (
        f"Means over n = {found.position.n} sequences with both kinds of token, {FOLDS} folds, "
        "with 95% intervals; each depth by itself. 0.5 is chance. Differences are paired."
    )
    columns = ("blocks passed", "balanced accuracy", "above position", "above the block's input")
    return Section("Is the tag readable along a line?", [words], [Table(columns, rows, caption)])


def _span(found: Interval) -> str:
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
