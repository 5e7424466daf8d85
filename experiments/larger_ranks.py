"""Is low rank learned? Tables and a picture of what the heads of a larger toy are made of."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from experiments import larger_pictures
from experiments.report import Picture, Section, Table

if TYPE_CHECKING:
    from experiments.toy_larger import Result, Variant
    from toy.larger.route import Dossier

FOUND, SINK = 0.1, 0.9  # as toy.diagnose, which costs jax to import

ROLES = ("sink heads", "release heads")  # of layer 1, of layer 2


def _heads(
    variant: "Variant", layer: int, kind: str
) -> tuple[Float[np.ndarray, "role k"], Float[np.ndarray, "other k"], Float[np.ndarray, "start k"]]:
    """Singular values of the heads that catch (layer 0) or release (1), the others, the start.

    Over seeds that average. A head catches with over 0.9 of its attention on [SEP], and releases
    with over 0.9 of the read-out's on what follows [SEP].
    """
    role, others, start = [], [], []
    for one in variant.dossiers:
        if not one.seen.fvu < FOUND:
            continue
        masses = one.seen.sink[0] if layer == 0 else one.seen.readout[layer, :, -1]
        start.extend(getattr(one.start, kind)[layer])
        for values, mass in zip(getattr(one.ranks, kind)[layer], masses, strict=True):
            (role if mass > SINK else others).append(values)
    role, others, start = (
        np.reshape(group, (-1, variant.shape.d_head)) for group in (role, others, start)
    )
    return role, others, start


KINDS = {
    "QK": "W_Q W_Kᵀ, as weights",
    "QK_data": "W_Q W_Kᵀ, on data",
    "OV": "W_V W_O, as weights",
    "OV_data": "W_V W_O, on data",
}


def low_rank(result: "Result") -> Section:
    """How few directions are enough, and how many there are."""
    able = [v for v in result.variants if v.shape.layers > 1 and (each(v, fvu) < FOUND).any()]
    if not able:
        return Section("Is it of low rank?", ["No seed averages: there is nothing to look at."])
    pictured = {
        f"layer {layer + 1}: {KINDS[kind]}": _heads(able[0], layer, kind)
        for layer, kind in ((0, "QK_data"), (1, "QK"), (1, "QK_data"))
    }
    picture = Picture(
        "larger-spectra",
        larger_pictures.spectra(pictured),
        "Singular values over the largest, median and 90% of heads, variant "
        f"“{able[0].name}”; a layer's “sink or release heads” are those that play its part.",
    )
    return Section("Is it of low rank?", [], [_truncations(able), _ranks(able)], [picture])


def _ranks(able: "list[Variant]") -> Table:
    from toy.larger.ranks import effective, second_over_first

    rows = []
    for variant in able:
        for layer, role in enumerate(ROLES):
            for kind, title in KINDS.items():
                cells = [
                    f"{spread(effective(group))} · {np.median(second_over_first(group)):.2f}"
                    if len(group)
                    else "–"
                    for group in _heads(variant, layer, kind)
                ]
                rows.append((variant.name, f"{layer + 1}: {role}", title, *cells))
    return Table(
        ("variant", "layer", "matrix", "these heads", "other heads", "before training"),
        rows,
        "Effective rank (median and range of heads in seeds that average) · median σ₂/σ₁. Each "
        f"could be {able[0].shape.d_head}. On data: weighted by what the head reads, which in "
        "layer 1 has few dimensions to begin with.",
    )


def _truncations(able: "list[Variant]") -> Table:
    ranks = able[0].dossiers[0].truncated.rank
    rows = []
    for variant in able:
        for layer in range(2):
            for kind, title in (("QK", "W_Q W_Kᵀ"), ("OV", "W_V W_O")):
                found = [
                    getattr(one.truncated, kind)[layer]
                    for one in variant.dossiers
                    if one.seen.fvu < FOUND
                ]
                cells = [
                    f"{np.median(errors):.3g}, {int((errors < FOUND).sum())}/{len(errors)}"
                    for errors in np.transpose(found)
                ]
                rows.append((variant.name, str(layer + 1), title, *cells))
    return Table(
        ("variant", "layer", "matrix", *(f"rank {rank}" for rank in ranks)),
        rows,
        "Variance unexplained when every head of a layer keeps only this many directions (median "
        "of the seeds that average), and how many of them still average.",
    )


def each(variant: "Variant", measure: "Callable[[Dossier], float]") -> Float[np.ndarray, " seed"]:
    """One number of every seed."""
    return np.array([float(measure(one)) for one in variant.dossiers])


def fvu(one: "Dossier") -> float:
    """Fraction of variance unexplained."""
    return one.seen.fvu


def spread(values: Float[np.ndarray, " any"]) -> str:
    """Median and range."""
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"
