"""The page of `activation`: who predicts best at a budget, one table, one picture."""

from typing import TYPE_CHECKING

from experiments import effects
from experiments.decoding.activation import TEAL
from experiments.decoding.activation_judge import TOLERANCE, bought
from experiments.intervals import Interval, of_few
from experiments.recalls import clear
from experiments.report import Picture, Section, Table

if TYPE_CHECKING:
    from experiments.decoding.activation import Result
    from experiments.decoding.activation_judge import Judged


def sections(result: "Result") -> list[Section]:
    """Verdicts, the table, the picture."""
    from experiments.decoding import activation_pictures

    sparsities = sorted({j.variant.sparsity for j in result.judged[1:]})
    text = [_setting(result), *(_verdict(result, s) for s in sparsities)]
    text += [_plan(j) for j in result.judged if j.best is not None]
    text += list(dict.fromkeys(f"{left.variant.method}, {effects.percent(left.variant.sparsity)}: "
                               f"{left.why}" for left in result.left))  # fmt: skip
    picture = Picture(
        "activation",
        activation_pictures.lines(result),
        "Perplexity, and nats a token more than TEAL's uniform recipe at the same budget, with "
        f"95% intervals over windows; hollow: over {100 * TOLERANCE:g} points more than TEAL read.",
    )
    return [Section("Prediction at equal bytes read", text, [_table(result)], [picture])]


def _setting(result: "Result") -> str:
    dense = result.judged[0]
    words = f"The dense model's perplexity is {dense.ppl:.4g}"
    if result.before is not None:
        words += f" in INT4 (groups of 128, GPTQ), {result.before:.4g} before"
    if result.config.settle:
        words += (
            "; thresholds are of what is read in the sparse model, but for those called unsettled, "
            "teal-signed and multi-phase (of the dense model, as published)"
        )
    else:
        words += "; thresholds are of what is read in the dense model"
    if any(j.saved for j in result.judged):
        words += "; those of recipes are as they were saved"
    gated = result.config.sparse_from
    if gated:
        return words + f"; the first {effects.percent(gated)} of a window is dense."
    return words + "; every token is gated, the first of a window too."


def _verdict(result: "Result", sparsity: float) -> str:
    """Who is best among those that keep to the budget, beside TEAL, and how surely."""
    percent = effects.percent(sparsity)
    here = [j for j in result.judged if j.variant.sparsity == sparsity and not j.whole]
    here = [j for j in here if j.planned <= 1 - sparsity + 1e-4]
    if not here:
        return f"At {percent} nothing keeps to the budget."
    best = min(here, key=lambda j: j.dense.mean)
    words = (
        f"At {percent}, {best.variant.method} predicts best: perplexity {_ppl(best)}, "
        f"{_read(best.read)} of the bytes read"
    )
    if best.variant.method == TEAL:
        return words + _beside(best, [j for j in here if j.teal is not None])
    if best.teal is None:
        return words + "."
    sure = "" if clear(best.teal) else ", which is not clear of none"
    if bought(best.teal, best.read, best.teal_read):
        sure = "; that is no win: it reads more"
    teal = next(j for j in result.judged if j.variant == (TEAL, sparsity, False))
    return (
        f"{words}, against TEAL's {_ppl(teal)} and {_read(teal.read)} "
        f"({_nats(best.teal)} nats a token{sure})."
    )


def _beside(teal: "Judged", others: list["Judged"]) -> str:
    """What TEAL, which predicts best, is worth."""
    if not others:
        return "; there is no other."
    near = [j.variant.method for j in others if not clear(j.teal)]
    less = [j.variant.method for j in others if bought(j.teal, j.read, teal.read)]
    words = f" (not clear of {', '.join(near)})" if near else ", clear of all others"
    return words + (f"; {', '.join(less)} read less." if less else ".")


def _plan(j: "Judged") -> str:
    said = {-1: "better than", 0: "not told apart from", 1: "worse than"}[clear(j.best)]
    words = (
        f"At {effects.percent(j.variant.sparsity)} the plan {j.variant.method} is {said} the best "
        f"baseline of no larger budget, {j.rival}: {_nats(j.best)} nats a token, {_read(j.read)} "
        f"of the bytes read (it: {_read(j.best_read)})"
    )
    if bought(j.best, j.read, j.best_read):
        return f"{words}; that is no comparison at equal bytes, and no win."
    return words + "."


def _table(result: "Result") -> Table:
    rows = [
        (
            "–" if not j.variant.sparsity else effects.percent(j.variant.sparsity),
            j.variant.method,
            _ppl(j),
            _nats(j.dense),
            _nats(j.teal),
            f"{100 * j.planned:.3f}%" if not j.whole else "100%",
            _read(j.read),
            "–" if j.teal is None else _points(j.read - j.teal_read),
        )
        for j in result.judged
    ]
    n = result.judged[0].dense.n
    return Table(
        (
            "not read",
            "method",
            "perplexity",
            "Δ to dense",
            "Δ to TEAL",
            "budget",
            "read",
            "less TEAL's",
        ),
        rows,
        f"{result.definition}. Δ: nats a token, paired by window, 95% intervals over n = {n} "
        f"windows. Text: {result.inputs.text}; calibrated on {result.calibration}. Budget: numbers "
        f"that a token may read of the {result.facts['numbers']:,} of {result.facts['linears']} "
        "linears, true shapes, factors whole; read: as counted on the scored text (a factor's rows "
        "of channels that are read are not). relu has no budget, and what it reads is in both "
        "columns; multi-phase reads everything. Less TEAL's: percentage points of the dense bytes; "
        f"who reads more than {100 * TOLERANCE:g} above another is not said to beat it."
        f"{of_few(n)}",
    )


def _read(share: float) -> str:
    return f"{100 * share:.2f}%"


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"


def _ppl(j: "Judged") -> str:
    return f"{j.ppl:.2f}" if j.ppl < 1000 else effects.number(j.ppl)


def _nats(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
