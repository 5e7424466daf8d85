"""Secondary sinks over prompts: where they live, who makes them, what their norm foretells."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.intervals import Interval
from experiments.probing.bootstrap import over_prompts, rank_correlation
from mech.probes import secondary
from mech.probes.secondary import KINDS, Secondary, Span

LEVELS = 6
"""Levels to name."""
_LIKE = ("found", "same id", "others")


class Tracks(NamedTuple):
    """One prompt through the layers: l is the state after block l, and block l's attention."""

    norm: Float[np.ndarray, "layer seq"]
    cosine: Float[np.ndarray, "layer seq"]
    score: Float[np.ndarray, "layer seq"]
    heads_on: Int[np.ndarray, "layer seq"]
    attn_along: Float[np.ndarray, "layer seq"]
    mlp_along: Float[np.ndarray, "layer seq"]
    ids: Int[np.ndarray, " seq"]
    later: Bool[np.ndarray, " seq"]
    first: int
    entering: float

    def span(self) -> Span:
        """Of the primary sink: its largest rise to its largest fall."""
        return secondary.span(self.norm[:, self.first], self.entering)

    def within(self, where: Span) -> Span:
        """`where`, or nothing if this prompt's own first token is raised nowhere in it."""
        raised = self.raised()[where.onset : where.end] > secondary.RAISED
        return where if raised.any() else Span(len(self.norm), len(self.norm))

    def raised(self) -> Float[np.ndarray, " layer"]:
        """‖h_first‖ over the median of the later tokens', by layer; 0 where that median is 0."""
        others = self.norm[:, self.later]
        median = np.median(others, axis=1) if others.size else np.zeros(len(self.norm))
        first = self.norm[:, self.first]
        return np.divide(first, median, out=np.zeros(len(first)), where=median > 0)


@dataclass(frozen=True)
class Place:
    """The sink-like tokens of one span of layers; counts a prompt, means with intervals over them.

    agreed: share of the prompts whose own span this is. norm_score: ρ of the norm at creation
    with the mean α (over heads and over the blocks that read a flagged state); norm_lifetime: with
    the lifetime; norm_attended: with the number of those blocks in which some head has the token
    as a guarded sink. attended: share of the tokens of which that number is not 0;
    attended_others: of the other later tokens in the whole span. made: what the MLP and the
    attention of block `maker`, which adds most along the primary sink, add there. crowding: ρ
    over prompts of the number of these tokens with the first token's score in the same blocks,
    which depth cannot explain as it can a correlation over layers.
    """

    name: str
    span: Span
    agreed: float
    count: Interval | None
    kinds: dict[str, Interval | None]
    release: dict[str, Interval | None]
    creation: Interval | None
    depth: Interval | None
    lifetime: Interval | None
    contiguous: Interval | None
    like: dict[str, Interval | None]
    by_mlp: Interval | None
    maker: int | None
    made_by_mlp: Interval | None
    made_by_attention: Interval | None
    norm_score: Interval | None
    norm_lifetime: Interval | None
    norm_attended: Interval | None
    attended_layers: Interval | None
    attended: Interval | None
    attended_others: Interval | None
    crowding: Interval | None
    levels: list[tuple[int, int, int]]


def places(prompts: list[Tracks]) -> list[Place]:
    """The strict span of the paper, then every phase of a raised first token.

    None where the first token is raised in no phase: a span always exists, and without a primary
    sink all tokens may be alike. For the same reason a prompt whose own first token is not
    raised in a span has nothing there.
    """
    raised = phases(prompts)
    if not raised:
        return []
    strict = [track.within(track.span()) for track in prompts]
    usual = Counter(strict).most_common(1)[0][0]
    found = [place("strict", usual, prompts, strict)]
    for i, phase in enumerate(raised):
        own = [track.within(phase) for track in prompts]
        found.append(place(f"phase {i + 1}", phase, prompts, own))
    return found


def phases(prompts: list[Tracks]) -> list[Span]:
    """Of the median prompt: a single one with a raised first token does not speak for all."""
    return secondary.phases(np.median([track.raised() for track in prompts], axis=0))


def place(name: str, usual: Span, prompts: list[Tracks], own: list[Span]) -> Place:
    """Each prompt by its own span; `usual` is only named."""
    pairs = list(zip(prompts, own, strict=True))
    found = [secondary.secondary(p.cosine, s, p.later) for p, s in pairs]
    alike = [
        secondary.likeness(p.cosine, s, p.later, p.ids, f.token)
        for (p, s), f in zip(pairs, found, strict=True)
    ]
    seen = [_seen(p, s, f) for (p, s), f in zip(pairs, found, strict=True)]
    norms = [p.norm[f.creation, f.token] for p, f in zip(prompts, found, strict=True)]
    lives = [f.lifetime.astype(float) for f in found]
    both = list(zip(prompts, found, strict=True))
    maker = _maker(both, own)
    levels = Counter((int(c), int(n)) for f in found for c, n in zip(f[1], f[2], strict=True))
    return Place(
        name=name,
        span=usual,
        agreed=sum(span == usual for span in own) / len(own),
        count=over_prompts(np.array([len(f.token) for f in found], float)),
        kinds=_kinds(found),
        release=_kinds(
            [
                f._replace(kind=secondary.classify(f.lifetime, s, len(p.norm), "release"))
                for (p, s), f in zip(pairs, found, strict=True)
            ]
        ),
        creation=_means([f.creation for f in found]),
        depth=_means([f.depth for f in found]),
        lifetime=_means(lives),
        contiguous=_means([f.contiguous for f in found]),
        like={k: over_prompts(np.array([a[i] for a in alike])) for i, k in enumerate(_LIKE)},
        by_mlp=_means([secondary.written_by_mlp(p.attn_along, p.mlp_along, f) for p, f in both]),
        maker=maker,
        made_by_mlp=_made([p.mlp_along for p in prompts], found, maker),
        made_by_attention=_made([p.attn_along for p in prompts], found, maker),
        norm_score=rank_correlation(norms, [s.score for s in seen]),
        norm_lifetime=rank_correlation(norms, lives),
        norm_attended=rank_correlation(norms, [s.attended for s in seen]),
        attended_layers=_means([s.attended for s in seen]),
        attended=_means([s.attended > 0 for s in seen]),
        attended_others=over_prompts(np.array([s.others for s in seen])),
        crowding=_crowding(pairs, found),
        levels=[(*level, n) for level, n in levels.most_common(LEVELS)],
    )


class _Seen(NamedTuple):
    """What the blocks that read a flagged state pay to its token; others: to the rest."""

    score: np.ndarray
    attended: np.ndarray
    others: float


def _seen(track: Tracks, where: Span, found: Secondary) -> _Seen:
    # Block l + 1 reads the state after block l.
    flagged = secondary.sink_like(track.cosine, where)[:-1, found.token]
    score = np.where(flagged, track.score[1:, found.token], 0.0).sum(axis=0)
    score /= np.maximum(flagged.sum(axis=0), 1)
    on = track.heads_on[1:] > 0
    attended = (on[:, found.token] & flagged).sum(axis=0).astype(float)
    rest = track.later.copy()
    rest[found.token] = False
    inside = on[where.onset : where.end, rest]
    others = float(inside.any(axis=0).mean()) if inside.size else float("nan")
    return _Seen(score, attended, others)


def _kinds(found: list[Secondary]) -> dict[str, Interval | None]:
    counts = np.array([np.bincount(f.kind, minlength=len(KINDS)) for f in found], float)
    return {kind: over_prompts(counts[:, i]) for i, kind in enumerate(KINDS)}


def _means(values: list[np.ndarray]) -> Interval | None:
    """Mean over prompts of the mean over a prompt's tokens, of those that have any."""
    finite = [v[np.isfinite(v)] for v in (np.asarray(v, float) for v in values)]
    return over_prompts(np.array([v.mean() if len(v) else np.nan for v in finite]))


def _maker(both: list[tuple[Tracks, Secondary]], own: list[Span]) -> int | None:
    """The block of the span whose MLP adds most along the primary sink, to all found tokens."""
    along = np.concatenate([p.mlp_along[:, f.token] for p, f in both], axis=1)
    if along.size == 0 or not np.isfinite(along).all():
        return None
    inside = np.zeros(len(along), bool)
    for (_, found), where in zip(both, own, strict=True):
        if len(found.token):
            inside[where.onset : where.end] = True
    # What a later phase adds to the same tokens did not make them what they are here.
    return int(np.where(inside, along.mean(axis=1), -np.inf).argmax())


def _made(along: list[np.ndarray], found: list[Secondary], maker: int | None) -> Interval | None:
    if maker is None:
        return None
    return _means([a[maker, f.token] for a, f in zip(along, found, strict=True)])


def _crowding(pairs: list[tuple[Tracks, Span]], found: list[Secondary]) -> Interval | None:
    # Block l + 1 reads the state after block l.
    primary = [p.score[s.onset + 1 : s.end + 1, p.first] for p, s in pairs]
    if not all(len(score) for score in primary):
        return None
    counts = [np.array([float(len(f.token))]) for f in found]
    return rank_correlation(counts, [np.array([float(score.mean())]) for score in primary])
