"""The laws of training about single matrices: their rank over time, and what compressing costs."""

from typing import TYPE_CHECKING

import numpy as np

from experiments import law_pictures
from experiments.intervals import interval
from experiments.report import Picture, Section, Table

if TYPE_CHECKING:
    from toy.laws.compressed import Compressed, Study
    from toy.laws.ranks import Ranks
    from toy.train import History

NOTHING = 1e-12
"""Relative change of a matrix below which only rounding was changed."""


def ranks(found: "Ranks", history: "History", seeds: int, of: int) -> Section:
    """When matrices become of rank one, and what the rest of W_V1 does."""
    times = [
        (name, _when(values))
        for name, values in (
            ("loss below 0.1 of the target's variance", found.loss_low),
            ("σ₂/σ₁ of W_Q W_K below 0.1", found.QK_low),
            ("σ₂/σ₁ of W_V (layer 1) below 0.1", found.V1_low),
        )
    ]
    zeroed = [
        (
            one.name,
            f"{np.median(one.removed):.3f}",
            f"{np.median(one.fvu):.2g} ({one.fvu.min():.2g} to {one.fvu.max():.2g})",
            f"{np.median(one.centred):.2g} ({one.centred.min():.2g} to {one.centred.max():.2g})",
        )
        for one in found.zeroed
    ]
    text = [
        f"σ₂/σ₁ ends at {np.median(found.ratio_QK):.4f} for W_Q W_K and at "
        f"{np.median(found.ratio_V1):.2f} for W_V of layer 1, their effective ranks at "
        f"{np.median(found.rank_QK):.3f} and {np.median(found.rank_V1):.2f} (medians). The first "
        "becomes of rank one before the loss has fallen; the second never does in most seeds.",
        "The second direction of W_V1 is a constant: after [SEP] all tokens read the same "
        "[s_num, -s_tag] through it, and it cancels what W_V2 reads of the tag. Without it, and "
        "with the best constant added to the output, the loss is what it was.",
    ]
    tables = [
        Table(("for good from step", "median (range)"), times, f"{seeds} of {of} seeds found it."),
        Table(
            ("W_V1", "removed / |W_V1|", "variance unexplained", "with the best constant added"),
            zeroed,
            f"Median and range over {seeds} seeds, 2,048 sequences; entries counted from 1.",
        ),
    ]
    picture = Picture(
        "law-ranks", law_pictures.spectra(history), f"{seeds} seeds of the default recipe."
    )
    return Section("W_Q W_K becomes of rank one, W_V1 keeps a constant", text, tables, [picture])


def _when(values: np.ndarray) -> str:
    never = int(np.isinf(values).sum())
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "never"
    told = f"{np.median(finite):.0f} ({finite.min():.0f} to {finite.max():.0f})"
    return told + (f"; never in {never}" if never else "")


def compression(trained: "Study", theorem: "Study") -> Section:
    """What pruning, truncating and rounding one matrix costs, against noise and first order."""
    share = {name: np.median(of, axis=0) for name, of in trained.shares.items()}
    worst = max(float(np.nanmax(row.bound, initial=0.0)) for row in theorem.rows)
    proved = sum(int(np.isfinite(row.bound).sum()) for row in theorem.rows)
    text = [
        "One matrix is replaced: W_V of layer 1, or the product W_Q W_Kᵀ of layer 2. Its cost is "
        "compared with Gaussian changes of equal Frobenius norm, and with the first order of the "
        "output in the change.",
        f"What matters is not the rank but one entry: {share['W_V1'][1, 0]:.1%} of the sensitivity "
        f"to W_V1 and {share['M'][1, 0]:.1%} of that to W_Q W_Kᵀ sits in row 2, column 1, through "
        "which tags reach numbers, enlarged by s_tag. A method that leaves a 0 there may remove "
        "almost everything else of W_V1; truncating it to rank one does not leave a 0 there.",
        f"On the theorem's own weights Theorem B at the changed (b, d) held in all {proved} cases "
        f"in which it speaks (largest error / bound {worst:.2f}).",
    ]
    tables = [
        _table(trained, f"{len(trained.before)} trained seeds, Gaussian numbers"),
        _table(theorem, f"the theorem at {len(theorem.before)} random (s, b, d), uniform numbers"),
    ]
    picture = Picture(
        "law-compression",
        law_pictures.compression(trained),
        "Dots: median over trained seeds, bars: range.",
    )
    return Section("Compression: an entry matters, not the rank", text, tables, [picture])


def _table(found: "Study", which: str) -> Table:
    columns = (
        "matrix", "intervention", "|dW| / |W|", "variance unexplained",
        "log₁₀(change / noise of equal norm)", "log₁₀(first order / change)",
    )  # fmt: skip
    caption = (
        f"{which}: medians, and means with 95% bootstrap intervals; before: "
        f"{np.median(found.before):.2g} unexplained; {found.draws} Gaussian changes each, "
        f"{found.sequences} sequences."
    )
    return Table(columns, [_row(row) for row in found.rows], caption)


def _row(row: "Compressed") -> tuple[str, ...]:
    start = (row.matrix if row.matrix == "W_V1" else "W_Q W_Kᵀ", row.name)
    changed = row.norm > NOTHING
    fvu = f"{np.median(row.fvu):.2g}"
    if not changed.any():
        return (*start, "0", fvu, "changes nothing", "–")
    against = np.log10(row.change[changed] / row.noise[changed])
    order = np.log10(row.foreseen[changed] / row.change[changed])
    return (
        *start,
        f"{np.median(row.norm):.3g}",
        fvu,
        str(interval(against)),
        str(interval(order)),
    )
