"""The page of `sparse-sinks`: what gates do to sinks, and what knowing sinks is worth."""

from typing import TYPE_CHECKING

from experiments import effects
from experiments.decoding import sink_pictures
from experiments.decoding.sinks import CONTROL_OF, PLAIN, WAYS, Gain, Row, Variant
from experiments.intervals import Interval, of_few
from experiments.recalls import clear, shown
from experiments.report import Picture, Section, Table

if TYPE_CHECKING:
    from experiments.decoding.sinks import Result

NAMES = {"teal": "TEAL", "rsparse": "R-Sparse", "rsparse-moment": "R-Sparse, least output error"}
AWARE = ("first", "sinks", "floor", "always", "makers")


def sections(result: "Result") -> list[Section]:
    """What happens to sinks; what is read of whom; what knowing them is worth."""
    plain = [said(row) for row in result.rows if row.variant.way == PLAIN]
    text = [*plain, starved(result)]
    found = [Section("What gates do to sinks", text, [_rows(result)], [_lines(result)])]
    tables = [_shifts(result)] + ([_gains(result)] if result.gains else [])
    pictures = [_forest(result)] if result.gains else []
    return [*found, Section("Gates that know the sinks", verdicts(result), tables, pictures)]


def said(row: Row) -> str:
    """A plain variant in a sentence."""
    return (
        f"{_where(row.variant)}: perplexity {effects.number(row.ppl)} "
        f"({_signed(row.nll)} nats a sparsified token beside the dense model); of the dense "
        f"model's first sinks {shown(row.kept.first_recall)} are left, of its later ones "
        f"{shown(row.kept.later_recall)} at a precision of {shown(row.kept.later_precision)}, of "
        f"its massive activations {shown(row.massive[0])}; tags point {shown(row.tags)} along "
        f"theirs. Read: {effects.percent(round(row.read, 4))} of the dense bytes."
    )


def starved(result: "Result") -> str:
    """Who is given how much by one threshold."""
    row = next(r for r in result.rows if r.variant.way == PLAIN)
    first, later = (_share(kind) for kind in row.kinds[1:])
    moved = [s for s in result.shifts if s.sparsity == row.variant.sparsity]
    most = max(abs(value - 1) for s in moved for value in (s.low, s.high))
    mean = sum(s.mean for s in moved) / len(moved) - 1
    return (
        f"What one threshold reads of whom: {_where(row.variant)}, {_share(row.kinds[0])} of the "
        f"bytes for an ordinary token, {first} for a first token, {later} for a later sink (a "
        "massive activation makes all other channels small once the norm has divided by it). "
        f"Leaving sinks out of the calibration moves thresholds by {mean:+.2%} on average, by "
        f"{most:.1%} at most; at equal bytes not at all."
    )


def verdicts(result: "Result") -> list[str]:
    """Every way that knows sinks: what the intervals say, beside plain and beside its control."""
    by_pair = {(g.variant, g.other): g for g in result.gains}
    lines = []
    for gain in result.gains:
        if gain.variant.way not in AWARE or gain.other != PLAIN:
            continue
        control = by_pair.get((gain.variant, CONTROL_OF.get(gain.variant.way, "")))
        lines.append(verdict(gain, control))
    return lines


def verdict(gain: Gain, control: Gain | None) -> str:
    """What one way is worth."""
    better, sinks = -clear(gain.nll), clear(gain.later_recall)
    words = {1: "predicts better", 0: "predicts no clearly better or worse", -1: "predicts worse"}
    kept = {1: "keeps more later sinks", 0: "keeps no clearly more or fewer", -1: "keeps fewer"}
    beside = ""
    if control is not None:
        own = {1: "better than", 0: "not clear of", -1: "worse than"}[-clear(control.nll)]
        beside = f"; {own} its control ({_signed(control.nll)} nats)"
    return (
        f"{_where(gain.variant)}, {WAYS[gain.variant.way]}, against plain at "
        f"{gain.read:.3f} times its bytes: {_signed(gain.nll)} nats a token, later sinks' recall "
        f"{_signed(gain.later_recall)}: it {words[better]} and {kept[sinks]}{beside}."
    )


def _where(variant: Variant) -> str:
    start = "" if variant.sparse_from == 0 else f", the first {variant.sparse_from:.0%} dense"
    return f"{NAMES[variant.method]} at {effects.percent(variant.sparsity)}{start}"


def _rows(result: "Result") -> Table:
    rows = [
        (
            f"{row.variant.sparse_from:g}",
            effects.percent(row.variant.sparsity),
            NAMES[row.variant.method],
            WAYS[row.variant.way],
            effects.number(row.ppl),
            _signed(row.nll),
            f"{row.read:.4f}",
            " / ".join(map(_share, row.kinds)),
            shown(row.kept.first_recall),
            shown(row.kept.later_recall),
            shown(row.kept.later_precision),
            shown(row.tags),
            shown(row.massive[0]),
            shown(row.massive[1]),
            shown(row.sizes),
        )
        for row in result.rows
    ]
    n = result.rows[0].nll.n
    dense = ", ".join(f"{effects.number(p)} from {s}" for s, p in result.dense_ppl.items())
    return Table(
        (
            *("sparse from", "not read", "method", "", "perplexity", "Δ nats", "read"),
            *("read of ordinary / first / later", "first sinks, recall", "later sinks, recall"),
            *("precision", "tags kept", "massive, recall", "precision", "their size"),
        ),
        rows,
        f"All linears of the blocks, dense products that simulate; held-out half of "
        f"{result.inputs.text}, n = {n} sequences of {result.config.amounts.context} tokens, 95% "
        f"intervals over them. Sparse from: the share of leading tokens that stays dense; losses "
        f"(dense perplexity {dense}), attention received and bytes are of the tokens after it. "
        "Sinks: α > 0.1, as sets of (layer, head, token); later ones guarded. Tags kept: mean "
        "cosine of v_s W_O with the dense model's. Massive: |h| > 100 and 1000 times its median; "
        f"their size: mean h' / h over the dense model's.{of_few(n)}",
    )


def _shifts(result: "Result") -> Table:
    rows = [
        (effects.percent(s.sparsity), s.role, f"{s.mean:.4f}", f"{s.low:.4f}", f"{s.high:.4f}")
        for s in result.shifts
    ]
    return Table(
        ("not read", "linear", "mean", "least", "most"),
        rows,
        "Thresholds on |x| from ordinary tokens alone over those from all tokens, by kind of "
        f"linear. At equal bytes both are one threshold: the share says where it lies. Of the "
        f"held-out tokens {_counted(result)}.",
    )


def _gains(result: "Result") -> Table:
    rows = [
        (
            f"{gain.variant.sparse_from:g}",
            effects.percent(gain.variant.sparsity),
            WAYS[gain.variant.way],
            WAYS[gain.other],
            _signed(gain.nll),
            _signed(gain.first_recall),
            _signed(gain.later_recall),
            _signed(gain.tags),
            f"{gain.read:.3f}",
        )
        for gain in result.gains
    ]
    return Table(
        (
            *("sparse from", "not read", NAMES[result.config.methods[0]], "less", "nats a token"),
            *("first sinks, recall", "later sinks, recall", "tags kept", "bytes over its bytes"),
        ),
        rows,
        "Paired differences with 95% intervals. Tokens that stay dense, and channels that are "
        "always read, are paid for by all others.",
    )


def _counted(result: "Result") -> str:
    return ", ".join(f"{count} are {kind}" for kind, count in result.tokens.items())


def _lines(result: "Result") -> Picture:
    return Picture(
        "sparse-sinks",
        sink_pictures.lines(result, NAMES, WAYS),
        "Loss, recall of first and later sinks, tags and massive activations by share of bytes "
        "not read, for the plain gates and for controls that read as much; every token sparse; "
        "95% intervals over sequences.",
    )


def _forest(result: "Result") -> Picture:
    return Picture(
        "sink-aware",
        sink_pictures.forest(result, WAYS),
        "Loss of gates that know the sinks, and of controls, less that of the plain gates that "
        "read as much: left of zero is better. 95% intervals over sequences.",
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _signed(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
