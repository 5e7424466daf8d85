"""Catch, tag and release on text: who is caught, what the head writes for it, how long it shows.

Heads are chosen on some sequences and judged on others. Every number is a mean over the judged
sequences in which the head has at least two sinks with three tokens each; release is measured
beside random contiguous segments, because neighbours in a text are alike anyway.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from experiments.intervals import Interval, interval
from experiments.probing.readout import Readout, read_out
from experiments.report import Section, Table
from mech.probes import agreement, catch, sinks, tags
from mech.probes.agreement import Grouping
from mech.probes.spectra import effective_rank
from mech.trace import BlockTrace

FEWEST = 6  # sequences: an interval of less would be too narrow
LEAST = 0.3  # share of a query's attention below which no sink has caught it


class Marked(NamedTuple):
    """One head on one sequence.

    share: Σ_s A[q, s], mean over the queries after the first sink. part: the tags' share of the
    head's output, and norm: the strongest tag over the stream's norm, medians over caught tokens.
    later, first: mean cosine between tags of two later sinks, and of a later sink and the first
    token; NaN without them. reads, writes: what the head gets and gives, grouped by sink. rank:
    the effective rank of its W_O.
    """

    labels: Int[np.ndarray, " seq"]
    share: float
    part: float
    norm: float
    later: float
    first: float
    reads: Grouping
    writes: Grouping
    rank: float


class Head(NamedTuple):
    """Means over the usable sequences.

    eta2_above, ari_above: above contiguous segments of the same sequence, so the interval is of
    paired differences. rank: the effective rank of the head's W_O, of d_head directions.
    """

    layer: int
    head: int
    share: Interval
    part: Interval
    norm: Interval
    later: Interval | None
    first: Interval | None
    eta2: Interval
    eta2_above: Interval
    ari: Interval
    ari_contiguous: Interval
    ari_above: Interval
    ari_shuffled: Interval
    reads_ari: Interval
    reads_above: Interval
    rank: float


class Curve(NamedTuple):
    """By depth: η² and ARI above the contiguous null in the stream, [depth, (mean, low, high)]."""

    eta2: Float[np.ndarray, "depth 3"]
    ari: Float[np.ndarray, "depth 3"]
    n: int


class Released(NamedTuple):
    """The chosen heads, the strongest first, and the first one's groups in the stream by depth."""

    heads: list[Head]
    curve: Curve | None
    judged: int
    readout: Readout | None = None


def choose(
    scores: Float[np.ndarray, "layer sequence head key"], epsilon: float, count: int
) -> list[tuple[int, int]]:
    """(layer, head) with the largest Σ α over guarded later sinks, the largest first."""
    later = scores[..., sinks.guarded(scores.shape[-1])]
    resting = np.where(sinks.sinks(later, epsilon), later, 0).sum(axis=(1, 3))
    ranked = np.argsort(-resting, axis=None, kind="stable")[:count]
    return [divmod(int(place), resting.shape[1]) for place in ranked if resting.flat[place] > 0]


def marked(
    block: BlockTrace,
    row: int,
    head: int,
    W_O: Float[np.ndarray, "head d_head d_model"],
    epsilon: float,
) -> Marked | None:
    """Catch and tag of one head on one sequence; None where it has no two groups to compare."""
    alpha = sinks.score(block.received, block.reach)[row, head]
    guarded = sinks.guarded(len(alpha))
    guarded[0] = True
    at = np.flatnonzero(sinks.sinks(alpha, epsilon) & guarded)
    if len(at) < 2:
        return None
    weight, value = tags.of_sinks(block.heads, row, at)
    weight, value, W_O = weight[head : head + 1], value[head : head + 1], W_O[head : head + 1]
    labels = catch.caught_by(weight[0], np.arange(len(at)), least=LEAST)
    labels[at] = -1
    kept = agreement.usable(labels)
    if kept is None:
        return None
    found = tags.tags(weight, value, block.z[row, head][None], W_O)
    cosine = tags.cosines(value, W_O)[0]
    size = np.linalg.norm(block.resid_pre[row, kept], axis=-1)
    own = labels.copy()
    own[np.setdiff1d(np.arange(len(own)), kept)] = -1
    return Marked(
        labels=own,
        share=float(weight[0, at[0] + 1 :].sum(axis=-1).mean()),
        part=float(np.median(found.share[0, kept].sum(axis=-1))),
        norm=float(np.median(found.norm[0, kept].max(axis=-1) / size)),
        later=_between(cosine[at > 0][:, at > 0]),
        first=float(cosine[0, 1:].mean()) if at[0] == 0 else float("nan"),
        reads=agreement.grouping(block.resid_pre[row, kept], labels[kept]),
        writes=agreement.grouping(block.z[row, head, kept], labels[kept]),
        rank=float(effective_rank(np.linalg.svd(W_O[0], compute_uv=False))),
    )


def measure(
    places: Sequence[tuple[int, int]],
    seen: Sequence[Sequence[Marked | None]],
    states: Float[np.ndarray, "depth sequence seq d_model"],
) -> Released:
    """`seen` by head and sequence; `states` is the stream of the same sequences."""
    heads = [
        _head(*place, [each for each in found if each is not None])
        for place, found in zip(places, seen, strict=True)
        if sum(each is not None for each in found) >= FEWEST
    ]
    first = next((found for found in seen if sum(e is not None for e in found) >= FEWEST), None)
    if first is None:
        return Released(heads, None, states.shape[1])
    line = read_out([_late(each) for each in first], states, heads[0].layer)
    return Released(heads, _curve(first, states), states.shape[1], line)


def _late(found: Marked | None) -> Int[np.ndarray, " seq"] | None:
    """1 where a later sink caught the token, 0 where the first token did, -1 elsewhere."""
    if found is None or np.isnan(found.first):  # the first token is no sink here
        return None
    return np.minimum(found.labels, 1)


def _head(layer: int, head: int, found: list[Marked]) -> Head:
    def over(read: list[float]) -> Interval:
        return interval(np.array(read, dtype=np.float64))

    later, first = (
        [value for value in column if not np.isnan(value)]
        for column in zip(*((each.later, each.first) for each in found), strict=True)
    )
    return Head(
        layer=layer,
        head=head,
        share=over([each.share for each in found]),
        part=over([each.part for each in found]),
        norm=over([each.norm for each in found]),
        later=over(later) if len(later) > 1 else None,
        first=over(first) if len(first) > 1 else None,
        eta2=over([each.writes.eta2 for each in found]),
        eta2_above=over([each.writes.eta2 - each.writes.eta2_contiguous for each in found]),
        ari=over([each.writes.ari for each in found]),
        ari_contiguous=over([each.writes.ari_contiguous for each in found]),
        ari_above=over([each.writes.ari - each.writes.ari_contiguous for each in found]),
        ari_shuffled=over([each.writes.ari_shuffled for each in found]),
        reads_ari=over([each.reads.ari for each in found]),
        reads_above=over([each.reads.eta2 - each.reads.eta2_contiguous for each in found]),
        rank=found[0].rank,
    )


def _curve(
    found: Sequence[Marked | None], states: Float[np.ndarray, "depth sequence seq d"]
) -> Curve:
    above = []
    for index, each in enumerate(found):
        if each is None:
            continue
        kept = np.flatnonzero(each.labels >= 0)
        groups = agreement.survival(states[:, index, kept], each.labels[kept], draws=30)
        above.append([(g.eta2 - g.eta2_contiguous, g.ari - g.ari_contiguous) for g in groups])
    columns = np.array(above)  # [sequence, depth, 2]
    eta2, ari = (
        np.array([interval(columns[:, depth, which])[:3] for depth in range(columns.shape[1])])
        for which in (0, 1)
    )
    return Curve(eta2, ari, len(above))


def _between(cosine: Float[np.ndarray, "sink sink"]) -> float:
    pairs = cosine[np.triu_indices(len(cosine), 1)]
    return float(pairs.mean()) if len(pairs) else float("nan")


def section(released: Released) -> Section:
    """The table of heads, and what it says about each of the three steps."""
    title = "Catch, tag, release on text"
    if not released.heads:
        return Section(title, [_nothing(released.judged)])
    rows = [
        (
            f"{h.layer}.{h.head}",
            str(h.ari.n),
            _span(h.share),
            _span(h.part),
            _span(h.norm),
            _span(h.later),
            _span(h.first),
            _span(h.eta2_above),
            _span(h.ari),
            _span(h.ari_contiguous),
            _span(h.ari_above),
            _span(h.ari_shuffled),
            _span(h.reads_ari),
            f"{h.rank:.0f}",
        )
        for h in released.heads
    ]
    columns = (
        "block.head", "n", "attention caught", "tags' part of the output", "tag / stream norm",
        "cosine of later tags", "… and the first's", "η² above segments", "ARI",
        "ARI, segments", "ARI above them, paired", "ARI, shuffled", "ARI of its input",
        "rank of W_O",
    )  # fmt: skip
    caption = (
        "Heads chosen by their later sinks on other sequences; n of "
        f"{released.judged} sequences have two sinks with three tokens each; means with 95% "
        "intervals over these. ARI: of k-means on the head's outputs with the sink attended to "
        f"most, if that is {LEAST} at least; segments: with random contiguous cuts; shuffled: with "
        "the labels in random order; paired: differences of the same sequence. Tag / stream norm: "
        "of the tag that a token got from its sink. Rank of W_O: effective, of the head's own rows."
    )
    return Section(title, [*_words(released)], [Table(columns, rows, caption)])


def _nothing(judged: int) -> str:
    if judged < FEWEST:
        return (
            f"{judged} judged sequence{'' if judged == 1 else 's'}, but {FEWEST} with two sinks "
            "are needed to ask what becomes of the tokens that sinks catch: nothing is said."
        )
    return (
        f"No head has two sinks in {FEWEST} of the {judged} judged sequences: too few to ask what "
        "becomes of the tokens that they catch."
    )


def _words(released: Released) -> list[str]:
    best = released.heads[0]
    lines = [
        f"Head {best.head} of block {best.layer} gives {best.share.mean:.0%} of its attention to "
        f"its sinks (after the first). Its outputs group by sink with ARI {best.ari}, "
        f"{best.ari_above} above random segments of the same sequence (n = {best.ari_above.n}): "
        + _shown(best.ari_above)
    ]
    if released.curve is not None:
        lines.append(_release_words(best, released.curve))
    return lines


def _shown(above: Interval) -> str:
    if above.low > 0:
        return "a tag beyond neighbourhood is shown."
    if above.high < 0:
        return "they agree less than neighbourhood does."
    return "a tag beyond neighbourhood is not shown."


def _release_words(best: Head, curve: Curve) -> str:
    after = curve.ari[best.layer + 1 :]
    clear = np.flatnonzero(after[:, 1] > 0)
    if len(clear) == 0:
        return (
            "In no later stream do k-means groups agree with these sinks beyond random segments "
            f"(largest mean {after[:, 0].max():+.3f}, n = {curve.n}): release is not seen so."
        )
    return (
        f"In the stream after block {best.layer}, k-means groups agree with these sinks beyond "
        f"random segments at {len(clear)} of {len(after)} depths (largest mean "
        f"{after[:, 0].max():+.3f}, n = {curve.n}; intervals are a depth's own)."
    )


def _span(found: Interval | None) -> str:
    return "–" if found is None else f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"
