"""Effects of interventions as tables, pictures and sentences; no model is touched here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments import pictures
from experiments.provenance import Inputs
from experiments.report import Picture, Table

if TYPE_CHECKING:
    from experiments.compress import Weights
    from experiments.measure import Effect


def table(effects: Sequence["Effect"], heads: int, inputs: Inputs) -> Table:
    """One row an intervention; the dense model first."""
    rows = []
    for effect in effects:
        kept, sinks = effect.kept, effect.sinks
        rows.append(
            (
                effect.name,
                number(effect.ppl),
                f"{effect.nll.mean:+.3f} [{effect.nll.low:+.3f}, {effect.nll.high:+.3f}]",
                f"{sinks.first.mean:.0f}",
                f"{share(kept.first_recall)} / {share(kept.first_precision)}",
                f"{sinks.later.mean:.0f}",
                f"{share(kept.later_recall)} / {share(kept.later_precision)}",
                f"{sinks.raw.mean:.0f}",
            )
        )
    first = effects[0]
    return Table(
        (
            "",
            "perplexity",
            "Δ nats a token [95%]",
            "first sinks",
            "recall / precision",
            "later sinks",
            "recall / precision",
            "raw count",
        ),
        rows,
        f"Paired with the dense model, n = {first.nll.n} windows (loss) and "
        f"{first.sinks.first.n} sequences (sinks) of {inputs.text}. First sinks: of {heads} "
        "heads, a sequence. Later sinks: guarded, the last 16 tokens left out. Recall and "
        "precision: of the dense model's set of (layer, head, token). Raw count: all that "
        "equation 1 counts, artefacts included.",
    )


def weights_table(weights: Sequence["Weights"]) -> Table:
    """Exact accounts, one row a method."""
    rows = [
        (
            w.method,
            f"{w.kept:,} of {w.parameters:,}",
            f"{w.kept / w.parameters:.4%}",
            f"{w.bits / 8 / 2**20:.1f} MiB",
            f"{w.delta_w:.3e}" if w.comparable else "–",
            f"{w.error:.4f}" if w.comparable else "–",
            f"{w.seconds:.0f} s",
        )
        for w in weights
    ]
    apart = ""
    if not all(w.comparable for w in weights):
        apart = " –: heads are in other coordinates, where the change of one matrix says nothing."
    return Table(
        ("method", "parameters kept", "density", "stored", "Δ_W", "scaled error", "time"),
        rows,
        f"{weights[0].linears} linears. Stored: values kept and a bitmask for the places of the "
        "sparse ones; nothing runs faster here, sparse products are simulated by dense ones. Δ_W: "
        "mean squared change of a weight, mean over blocks. Scaled error: ‖(W - Ŵ)D‖ / ‖WD‖ with "
        "D = diag √E[x²], mean over linears. Time: of the method alone, on this machine." + apart,
    )


def forest(effects: Sequence["Effect"], name: str, title: str) -> Picture:
    """Losses with their intervals."""
    return Picture(
        name,
        pictures.forest(
            [e.name for e in effects],
            np.array([e.nll.mean for e in effects]),
            np.array([e.nll.low for e in effects]),
            np.array([e.nll.high for e in effects]),
            "Δ nats a token against the dense model",
            title,
        ),
        f"Loss against the dense model, paired over n = {effects[0].nll.n} windows, with 95% "
        "intervals.",
    )


def sink_bars(effects: Sequence["Effect"], name: str, title: str) -> Picture:
    """Recall of the dense model's sinks."""
    return Picture(
        name,
        pictures.bars(
            [e.name for e in effects],
            {
                "first token": [e.kept.first_recall for e in effects],
                "later tokens (guarded)": [e.kept.later_recall for e in effects],
            },
            "share of the dense model's sinks",
            title,
        ),
        "Recall of the dense model's sinks, as a set of (layer, head, token), over "
        f"n = {effects[0].sinks.first.n} sequences.",
    )


def sentence(what: str, effect: "Effect") -> str:
    """The effect in words and numbers."""
    return (
        f"{what} takes perplexity to {number(effect.ppl)} "
        f"({effect.nll.mean:+.3f} nats a token [{effect.nll.low:+.3f}, {effect.nll.high:+.3f}]) "
        f"and keeps {share(effect.kept.first_recall)} of the first-token sinks and "
        f"{share(effect.kept.later_recall)} of the later ones."
    )


def number(value: float) -> str:
    """Three figures, and no more digits than a reader can use."""
    return f"{value:.3g}" if value < 1e4 else f"{value:.1e}"


def percent(value: float) -> str:
    """A share in percent, with the digits it was given with: never rounded to 0% or 100%."""
    return f"{100 * value:.10g}%"


def share(value: float) -> str:
    """A share between 0 and 1, or a dash where there was nothing to share."""
    return "–" if np.isnan(value) else f"{value:.2f}"
