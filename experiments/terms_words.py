"""What `terms` says: tables, and sentences that rest on intervals of paired differences."""

from typing import TYPE_CHECKING

from experiments import effects, naming
from experiments.intervals import Interval
from experiments.recalls import clear, shown
from experiments.report import Table

if TYPE_CHECKING:
    from experiments.terms import Contrast, Result


def table(result: "Result") -> Table:
    """One row a variant; the dense model first."""
    rows = []
    for name, effect in result.found.items():
        kept = result.recalls[name]
        nll = effect.nll
        rows.append(
            (
                name,
                f"{result.removed[name]:.3f}",
                effects.number(effect.ppl),
                f"{nll.mean:+.3f} [{nll.low:+.3f}, {nll.high:+.3f}]",
                shown(kept.first_recall),
                _mean(kept.first_precision),
                shown(kept.later_recall),
                shown(kept.later_precision),
            )
        )
    first = result.found[naming.DENSE]
    columns = (
        *("", "removed", "perplexity", "Δ nats a token"),
        *("first sinks, recall", "precision", "later sinks, recall", "precision"),
    )
    caption = (
        f"Of {result.linears} matrices {result.config.where}; everything else is dense. Removed: "
        "‖(W - Ŵ)D‖² / ‖WD‖², D = diag √E[x²], mean over the matrices. In brackets: 95% "
        f"intervals, over {first.nll.n} windows for the loss (paired with the dense model) and "
        f"{first.sinks.first.n} sequences for the sinks of {result.inputs.text}. Recall and "
        "precision: of the dense model's set of (layer, head, token); later sinks are guarded, "
        "the last 16 tokens left out. Densities count entries of a row."
    )
    return Table(columns, rows, caption)


def contrasts(result: "Result") -> Table:
    """The differences that the sentences rest on."""
    rows = [
        (c.b, c.a, _signed(c.first), _signed(c.later), _signed(c.nll)) for c in result.contrasts
    ]
    return Table(
        ("", "less", "first sinks, recall", "later sinks, recall", "nats a token"),
        rows,
        "Paired differences with 95% intervals: sequences are drawn together for both sides of a "
        "recall, windows for a loss.",
    )


def text(result: "Result") -> list[str]:
    """What was done, and a sentence for every question that was asked."""
    where = result.config.where
    swapped = (
        "OATS writes a matrix as sparse plus low rank. Here it stands only in "
        f"{where} at {effects.percent(result.config.budget.sparsity)}, calibrated once, and its "
        "terms are switched off and replaced."
    )
    if result.recalls[naming.DENSE].first_recall is None:
        return [swapped, "The dense model has no first-token sinks that a term could carry."]
    by_pair = {(c.a, c.b): c for c in result.contrasts}
    asked = [
        (naming.SPARSE, naming.LOW, _carrier),
        (naming.SPARSE, naming.PLAIN, _sparsity),
        (naming.SPARSE, naming.AS_FAR, _amount),
        (naming.RANDOM, naming.BOTH, _directions),
        (naming.OUTPUTS, naming.BOTH, _outputs),
        (naming.INPUTS, naming.BOTH, _inputs),
        (naming.TOP, naming.NORM, _top),
    ]
    return [
        swapped,
        *(say(result, by_pair[a, b]) for a, b, say in asked if (a, b) in by_pair),
    ]


def _carrier(result: "Result", c: "Contrast") -> str:
    verdict = {
        1: "So of OATS' two terms it is the low-rank one that carries them, as the papers say.",
        -1: "So of OATS' two terms it is the sparse one that carries them, unlike in the papers.",
        0: "So neither of OATS' two terms carries them clearly more than the other.",
    }
    return (
        f"With the low-rank term off, {_first(result, c.a)} of the first-token sinks remain; with "
        f"the sparse term off, {_first(result, c.b)}: {_signed(c.first)} more, paired. "
        f"{verdict[clear(c.first)]}"
    )


def _sparsity(result: "Result", c: "Contrast") -> str:
    verdict = {
        1: (
            "So “sparse matrices lose the sinks” does not follow: OATS' sparse term is what is "
            f"left when the low-rank part has been taken out, {_lacks(result, c.a)} of the scaled "
            f"matrix gone, and not a sparse matrix of the weights, {_lacks(result, c.b)} gone."
        ),
        -1: "So OATS' sparse term keeps more of them than a plain sparse matrix does.",
        0: "So a plain sparse matrix keeps neither clearly more nor clearly fewer.",
    }
    return (
        f"A plain sparse matrix with the same number of nonzeros keeps {_first(result, c.b)} of "
        f"the first-token and {shown(result.recalls[c.b].later_recall)} of the later sinks. "
        f"{verdict[clear(c.first)]}"
    )


def _amount(result: "Result", c: "Contrast") -> str:
    as_much = _lacks(result, c.a) == _lacks(result, c.b)
    verdict = {
        1: (
            "So it is not only how much was removed: more sinks go with the low-rank part than "
            "with as much of the smallest entries."
        )
        if as_much
        else "But less was removed from it, so that this does not tell amount from low rank.",
        -1: "So with no more removed even fewer sinks survive.",
        0: "So at such an amount it makes no clear difference what was removed.",
    }
    return (
        f"OATS' sparse term lacks {_lacks(result, c.a)} of the scaled matrix. A plain sparse "
        f"matrix that lacks {_lacks(result, c.b)} keeps {_first(result, c.b)} of the "
        f"first-token sinks, OATS' sparse term {_first(result, c.a)}. {verdict[clear(c.first)]}"
    )


def _directions(result: "Result", c: "Contrast") -> str:
    verdict = {
        1: "it is these directions that matter, not having a low-rank term.",
        -1: "a random term does better than OATS' own.",
        0: "the directions of the low-rank term make no clear difference.",
    }
    return (
        "A random low-rank term of equal rank and norm beside the sparse one keeps "
        f"{_first(result, c.a)}, OATS' own {_first(result, c.b)}: {verdict[clear(c.first)]}"
    )


def _outputs(result: "Result", c: "Contrast") -> str:
    return _permuted(result, c, "outputs that it writes to", "inputs")


def _inputs(result: "Result", c: "Contrast") -> str:
    return _permuted(result, c, "inputs that it reads", "outputs")


def _permuted(result: "Result", c: "Contrast", what: str, other: str) -> str:
    verdict = {
        1: f"so the {what} matter, at an equal spectrum and equal {other}",
        -1: "which is more than OATS' own keeps",
        0: f"so it makes no clear difference which {what}",
    }
    return f"With the {what} permuted it keeps {_first(result, c.a)}: {verdict[clear(c.first)]}."


def _top(result: "Result", c: "Contrast") -> str:
    verdict = {
        1: "So it is that direction, and not the amount, that carries them.",
        -1: "So the top component carries fewer of them than a random one of its size.",
        0: "So it makes no clear difference whether it is that direction or a random one.",
    }
    known = result.recalls[naming.PROJECTION].first_recall
    return (
        f"Without the top component of the scaled matrix, which is {result.removed[c.a]:.2f} of "
        f"it, the dense matrices keep {_first(result, c.a)}; without a random rank-4 projection "
        f"of the outputs, which is {result.removed[naming.PROJECTION]:.2f}, {shown(known)}; "
        f"without a random component of the top one's norm {_first(result, c.b)}. "
        f"{verdict[clear(c.first)]}"
    )


def _lacks(result: "Result", name: str) -> str:
    return f"{result.removed[name]:.2f}"


def _first(result: "Result", name: str) -> str:
    return shown(result.recalls[name].first_recall)


def _mean(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.mean:.2f}"


def _signed(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
