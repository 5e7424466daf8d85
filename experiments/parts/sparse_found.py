"""What the tables on R-Sparse share: paired differences, rows, lines over sparsities."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.findings import ABOVE_ZERO, Finding, Region
from experiments.intervals import Interval, interval, of_few
from experiments.parts.intervened import Variant
from experiments.report import Picture, Table

if TYPE_CHECKING:
    from experiments.decoding.activation_measure import Seen

DENSE = Variant("dense")
NATS = "nats a token"


class Losses(NamedTuple):
    """What every variant that could be built came to; and why others could not."""

    seen: "Mapping[Variant, Seen]"
    left: Mapping[Variant, str] = {}

    def __contains__(self, variant: object) -> bool:
        return variant in self.seen

    def less(self, one: Variant, other: Variant) -> Interval:
        """Nats a token that `one` is above `other`, paired by window."""
        return interval(self.seen[one].nll - self.seen[other].nll)

    def reads(self, variant: Variant) -> str:
        """In words: what share of the dense bytes a sparse token really read."""
        return f"{variant} reads {self.seen[variant].read:.1%}"

    @property
    def units(self) -> dict[str, np.ndarray]:
        """Nats a token of every window, by variant."""
        return {str(variant): one.nll for variant, one in self.seen.items()}


def gathered(found: "Mapping[Variant, Seen | str]") -> Losses:
    """Apart: what was measured, and what cannot read so little."""
    seen = {v: one for v, one in found.items() if not isinstance(one, str)}
    return Losses(seen, {v: one for v, one in found.items() if isinstance(one, str)})


def beside(
    claim: str, losses: Losses, own: Variant, others: Sequence[Variant], region: Region = ABOVE_ZERO
) -> Iterator[Finding]:
    """How much worse than `own` each of the others predicts, those that were built."""
    for other in others:
        if own in losses and other in losses:
            yield Finding(
                claim=claim,
                case=f"{own} against {other}",
                effect=losses.less(other, own),
                unit=f"{NATS} that {own.method} is better",
                over="windows",
                claimed=region,
                control=f"bytes: {losses.reads(other)}, {losses.reads(own)}",
            )


def table(losses: Losses, own: str, before: str = "") -> Table:
    """A row a variant, beside dense and beside `own` at the same sparsity."""
    rows = []
    for variant, one in losses.seen.items():
        rival = Variant(own, variant.sparsity)
        paired = rival in losses and variant not in (rival, DENSE)
        rows.append(
            (
                str(variant),
                f"{np.exp(min(one.nll.mean(), 700.0)):.4g}",
                "–" if variant == DENSE else signed(losses.less(variant, DENSE)),
                signed(losses.less(variant, rival)) if paired else "–",
                f"{one.planned:.1%}",
                f"{one.read:.1%}",
            )
        )
    rows += [(str(variant), why, *["–"] * 4) for variant, why in losses.left.items()]
    n = len(losses.seen[DENSE].nll)
    return Table(
        ("model", "perplexity", "less dense, nats", f"less {own}, nats", "budget", "really read"),
        rows,
        f"{before}Sparse tokens only, 95% intervals over n = {n} windows, paired. Budget and "
        f"really read: numbers of the linears a sparse token, counted.{of_few(n)}",
    )


def signed(found: Interval) -> str:
    """With its sign."""
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def lines(losses: Losses) -> dict[str, Any]:
    """By method: sparsities, and nats above dense with their intervals; for `over_sparsities`."""
    found: dict[str, Any] = {}
    for variant in losses.seen:
        if variant != DENSE:
            above = losses.less(variant, DENSE)
            found.setdefault(variant.method, []).append(
                [variant.sparsity, above.mean, above.low, above.high]
            )
    return found


def over_sparsities(data: Mapping[str, Any], name: str, caption: str) -> Picture:
    """Nats above the dense model over the share that is not read, a line a method."""
    from experiments.pictures import figure

    canvas, (axes,) = figure(7.4, 4.6)
    for method, points in data.items():
        x, mean, low, high = np.array(sorted(points)).T
        error = np.clip([mean - low, high - mean], 0, None)
        axes.errorbar(100 * x, mean, error, marker="o", capsize=3, label=method)
    axes.set(
        xlabel="% of the linears' bytes not read",
        ylabel="nats a token above dense",
        yscale="symlog",
    )
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.legend()
    return Picture(name, canvas, caption)
