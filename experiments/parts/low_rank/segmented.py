"""Do heads still attend to the dense model's sinks, and write alike into what these caught?"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.progress import Progress

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.parts.work import Work
    from mech.trace import BlockTrace

SHOWN = 64  # tokens of a picture


class Segments(NamedTuple):
    """What the dense model says: its heads with most later sinks, their sinks, who is caught.

    places: (layer, head), chosen on the calibration sequences. sinks: first tokens and guarded
    later ones. labels: the number of the sink that caught each token, -1 for none.
    """

    places: list[tuple[int, int]]
    sinks: Bool[np.ndarray, "place sequences key"]
    labels: Int[np.ndarray, "place sequences key"]


class Seen(NamedTuple):
    """Values of a sequence: means over the places whose sinks catch two groups; NaN where none has.

    caught: Σ_s A[q, s] over the dense model's sinks s, mean over the queries after the first one.
    ari, eta2: of k-means and of the groups themselves, of what the head writes, above random cuts
    into as many contiguous segments.
    """

    caught: Float[np.ndarray, " sequences"]
    ari: Float[np.ndarray, " sequences"]
    eta2: Float[np.ndarray, " sequences"]


class Look(NamedTuple):
    """One head on one sequence: its pattern, and its outputs as colours (`segments`)."""

    pattern: Float[np.ndarray, "query key"]
    colour: Float[np.ndarray, "seq 3"]


class Shown(NamedTuple):
    """Tokens of a picture, and where among them the dense model's sinks are."""

    tokens: list[str]
    sinks: Int[np.ndarray, " sink"]


def segments(work: "Work", heads: int, progress: Progress) -> Segments:
    """Of the model as it is now: choose on the first tokens of the calibration sequences."""
    from experiments import measure
    from experiments.probing import pruned_tags
    from mech.probes import sinks

    model, ids = work.loaded.model, work.sequences
    choosing = work.calibration[:, : ids.shape[1]]
    parts = (len(choosing), 2 * len(ids))
    with progress.task("heads that tag", sum(-(-n // measure.AT_ONCE) for n in parts)) as advance:
        scores = measure.sink_scores(model, choosing, advance)
        places = pruned_tags.choose(scores, measure.EPSILON, heads)
        found = sinks.sinks(measure.sink_scores(model, ids, advance), measure.EPSILON)
        labels = pruned_tags.labelled(model, ids, places, measure.EPSILON, advance)
    allowed = sinks.guarded(ids.shape[1])
    allowed[0] = True
    own = np.array([found[layer, :, head] & allowed for layer, head in places])
    return Segments(places, own.reshape(labels.shape), labels)


def seen(work: "Work", of: Segments) -> Seen:
    """The model as it is now, by the dense model's sinks and labels."""
    from experiments import measure
    from experiments.probing import pruned_tags
    from mech.capture import capture_blocks

    found = np.full((3, *of.labels.shape[:2]), np.nan)

    def read(block: "BlockTrace", begin: int) -> None:
        for place, (layer, head) in enumerate(of.places):
            if layer == block.layer:
                rows = slice(begin, begin + len(block.z))
                eta2, cut, ari, cut_ari = pruned_tags.grouped(
                    block.z[:, head], of.labels[place, rows]
                ).T
                found[1:, place, rows] = ari - cut_ari, eta2 - cut
                for row, at in enumerate(of.sinks[place, rows]):
                    if not np.isnan(eta2[row]):
                        found[0, place, begin + row] = _caught(block, row, head, at)

    begin = 0
    for group in work.sequences.split(measure.AT_ONCE):
        capture_blocks(work.loaded.model, group, lambda b, begin=begin: read(b, begin))
        begin += len(group)
    return Seen(*(_mean(values) for values in found))


def look(work: "Work", of: Segments) -> Look:
    """The first place on the first sequence where its sinks catch two groups, as it is now."""
    from mech.attention import pattern_rows
    from mech.capture import capture_blocks
    from mech.probes.segments import segments as coloured

    (layer, head), row = of.places[0], _usable(of.labels[0])
    ids = work.sequences[row : row + 1, :SHOWN]
    found: list[Look] = []

    def read(block: "BlockTrace") -> None:
        if block.layer == layer:
            pattern = pattern_rows(block.heads, np.arange(ids.shape[1]))[0, head]
            found.append(Look(pattern, coloured(block.z[0, head]).colour))

    capture_blocks(work.loaded.model, ids, read)
    return found[0]


def shown(work: "Work", of: Segments) -> Shown:
    """The tokens that `look` shows."""
    from experiments import catching

    row = _usable(of.labels[0])
    ids = work.sequences[row, :SHOWN]
    at = np.flatnonzero(of.sinks[0, row, :SHOWN])
    return Shown(catching.shown(work.loaded.tokenizer, ids.tolist()), at)


def _caught(block: "BlockTrace", row: int, head: int, at: np.ndarray) -> float:
    from mech.probes import tags

    where = np.flatnonzero(at)
    weight, _ = tags.of_sinks(block.heads, row, where)
    return float(weight[head, where[0] + 1 :].sum(axis=-1).mean())


def _usable(labels: Int[np.ndarray, "sequences key"]) -> int:
    return int(np.argmax((labels >= 0).any(axis=1)))


def _mean(values: Float[np.ndarray, "place sequences"]) -> Float[np.ndarray, " sequences"]:
    """Over the places that are not NaN; NaN where all are."""
    real = ~np.isnan(values)
    total = np.where(real, values, 0).sum(axis=0)
    count = real.sum(axis=0)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
