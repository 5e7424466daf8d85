"""The page of `pruning`: what was kept, method by method, and one picture."""

import math
from typing import TYPE_CHECKING

from experiments import effects, pruning_pictures
from experiments.intervals import Interval, of_few
from experiments.pruning_judge import Judged
from experiments.recalls import clear, shown
from experiments.report import Picture, Section, Table

if TYPE_CHECKING:
    from experiments.pruning import Result


def sections(result: "Result") -> list[Section]:
    """Perplexity, sinks, tags, weights."""
    dense, *variants = result.judged
    text = [_verdict(result, sparsity) for sparsity in result.config.sparsities]
    tables = [_losses(result), _sinks(result), _tags(result), _weights(result)]
    picture = Picture(
        "pruning",
        pruning_pictures.lines(result),
        "Perplexity, recall of the dense model's guarded later sinks, ARI of the tag heads' "
        "outputs above contiguous segments, and Δ_W, with 95% intervals over windows or "
        "sequences.",
    )
    assert dense.variant.method == "dense"
    return [Section("What pruning keeps", text, tables, [picture] if variants else [])]


def _verdict(result: "Result", sparsity: float) -> str:
    """Which means are best, with intervals; beside what, and how surely.

    Means of the same windows, so the order is of these windows: only what is paired is told apart.
    """
    here = [j for j in result.judged if j.variant.sparsity == sparsity]
    finite = [j for j in here if math.isfinite(j.loss.ppl)]
    if not finite:
        return f"At {effects.percent(sparsity)} no perplexity is finite."
    best = min(finite, key=lambda j: j.loss.ppl)
    percent = effects.percent(sparsity)
    lowest = effects.number(best.loss.ppl)
    words = f"At {percent}, {best.variant.name} has the lowest perplexity, {lowest}"
    if best.loss.beside is not None:
        sure = "" if clear(best.loss.beside) else ", which is not clear of none"
        words += f" ({_nats(best.loss.beside)} nats a token beside {best.beside}{sure})"
    else:
        words += _not_clearly_behind(here, best)
    sinks = [(j.sinks.later_recall, j) for j in here if j.sinks.later_recall is not None]
    if sinks:
        recall, most = max(sinks, key=lambda pair: pair[0].mean)
        words += (
            f"; {most.variant.name} has the highest recall of the later sinks, {shown(recall)}, at "
            f"a precision of {shown(most.sinks.later_precision)}"
        )
        if most.later_beside is not None:
            sure = "" if clear(most.later_beside) else ", not clear of none"
            words += f" ({_nats(most.later_beside)} beside {most.beside}{sure})"
    tags = [(j.tags.ari, j) for j in here if j.tags.ari is not None]
    if tags:
        ari, most = max(tags, key=lambda pair: pair[0].mean)
        less = most.tags.to_dense
        sure = "" if less is None or clear(less) else ", not clear of none"
        words += (
            f"; the highest ARI of tags is {most.variant.name}'s, {shown(ari)} above the control's "
            f"({_nats(less)} to the dense model's{sure}; methods are not paired here)"
        )
    return words + "."


def _not_clearly_behind(here: "list[Judged]", best: Judged) -> str:
    """Of those that are paired with the best, the ones that chance may have put behind it."""
    others = [j for j in here if j.beside == best.variant.name and j.loss.beside is not None]
    near = [f"{j.variant.name} {_nats(j.loss.beside)}" for j in others if not clear(j.loss.beside)]
    if not others:
        return ""
    if not near:
        return f" (clear of all {len(others)} others)"
    return f" (not clear of {', '.join(near)} nats a token)"


def _losses(result: "Result") -> Table:
    rows = []
    for j in result.judged:
        limit = ("–", "–") if j.limit is None else (_ppl(j.limit.ppl), _nats(j.limit.to_dense))
        rows.append(
            (*_name(j), _ppl(j.loss.ppl), _nats(j.loss.to_dense), _nats(j.loss.beside), *limit)
        )
    first = result.judged[0]
    count = 0 if first.limit is None else first.limit.windows
    return Table(
        ("sparsity", "method", "perplexity", "Δ to dense", "Δ beside",
         f"at {result.limit:,} tokens", "Δ to dense"),
        rows,
        f"{result.definition}. n = {first.loss.windows} windows; at {result.limit:,} tokens, the "
        f"most the model was made for, n = {count}. Δ: nats a token, paired by window, with 95% "
        f"intervals over windows. Text: {result.inputs.text}; calibrated on "
        f"{result.calibration}. Every method spends at most what Wanda spends, in "
        f"{_measured(result)}. Beside: Wanda of the same sparsity; for a budget that is not "
        f"uniform, the same method's first one.{of_few(first.loss.windows)}",
    )  # fmt: skip


def _sinks(result: "Result") -> Table:
    rows = [
        (*_name(j), *(shown(share) for share in j.sinks), _nats(j.later_beside))
        for j in result.judged
    ]
    sequences = result.judged[0].sinks.first_recall
    n = 0 if sequences is None else sequences.n
    return Table(
        ("sparsity", "method", "first: recall", "precision", "later: recall", "precision",
         "recall, beside"),
        rows,
        f"Of the dense model's set of (layer, head, token) with α > 0.1, {result.heads} heads, "
        f"n = {n} sequences of {result.config.amounts.seq} tokens, 95% intervals over sequences; "
        "later sinks without the last 16 tokens.",
    )  # fmt: skip


def _tags(result: "Result") -> Table:
    rows = [
        (*_name(j), *(map(shown, (j.tags.eta2, j.tags.ari, j.tags.null))), _nats(j.tags.to_dense))
        for j in result.judged
    ]
    places = ", ".join(f"{layer}.{head}" for layer, head in result.places)
    sequences = result.judged[0].tags.ari
    n = 0 if sequences is None else sequences.n
    return Table(
        ("sparsity", "method", "η² above control", "ARI above control", "control's ARI",
         "ARI less dense"),
        rows,
        f"Outputs of the heads {places}, which have most later sinks in the dense model on other "
        "sequences, at the tokens that its sinks caught, grouped by its sinks. Control: random "
        f"contiguous segments. n = {n} sequences, 95% intervals over them.",
    )  # fmt: skip


def _weights(result: "Result") -> Table:
    rows = [
        (
            *_name(j),
            f"{j.facts['kept']:,}",
            f"{j.facts['kept'] / j.facts['parameters']:.3%}",
            f"{j.facts['bits'] / 8 / 2**20:.1f} MiB",
            f"{j.facts['bytes_moved'] / 2**20:.1f} MiB",
            f"{j.facts['delta_w']:.3e}",
            f"{j.facts['error']:.4f}",
            f"{j.facts['seconds']:.0f} s",
        )
        for j in result.judged
        if j.facts
    ]
    return Table(
        ("sparsity", "method", "kept", "density", "stored", "moved a token", "Δ_W", "scaled error",
         "CPU time"),
        rows,
        "Δ_W: mean squared change of a weight, mean over blocks. Scaled error: ‖(W - Ŵ)D‖ / ‖WD‖, "
        "D = diag √E[x²], mean over linears. CPU time: calibration and method, on this machine.",
    )  # fmt: skip


def _name(j: Judged) -> tuple[str, str]:
    variant = j.variant
    return ("–" if variant.method == "dense" else effects.percent(variant.sparsity)), variant.name


def _measured(result: "Result") -> str:
    return {
        "kept": "numbers kept",
        "bits": "bits stored, places included",
        "flops": "operations a token",
        "bytes_moved": "bytes moved a token",
    }[result.config.measure]


def _ppl(value: float) -> str:
    return "–" if math.isnan(value) else effects.number(value)


def _nats(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
