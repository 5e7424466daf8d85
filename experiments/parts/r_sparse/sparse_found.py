"""What the tables on R-Sparse share: variants one after the other, differences, rows, lines."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from experiments.findings import ABOVE_ZERO, Finding, Region
from experiments.intervals import Interval, interval, of_few
from experiments.parts.intervened import DENSE, Variant
from experiments.report import Picture, Table

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.decoding.activation_measure import Seen
    from experiments.fewshot.task import Task
    from experiments.parts.r_sparse.sparse import Sparse

OWN = "r-sparse"


class Losses(NamedTuple):
    """Every variant that could be built, which items it answered right, why others could not."""

    seen: "dict[Variant, Seen]"
    right: dict[Variant, Bool[np.ndarray, " items"]]
    left: dict[Variant, str]

    def less(self, one: Variant, other: Variant) -> Interval:
        """Nats a token that `one` is above `other`, paired by window."""
        return interval(self.seen[one].nll - self.seen[other].nll)

    def more_right(self, one: Variant, other: Variant) -> Interval:
        """Share of the items that `one` answers right less that of `other`, paired by item."""
        return interval(self.right[one].astype(float) - self.right[other])

    def reads(self, *variants: Variant) -> str:
        """In words: what shares of the dense bytes sparse tokens really read."""
        return ", ".join(f"{v} reads {self.seen[v].read:.1%}" for v in variants)

    def unequal(self, one: Variant, other: Variant) -> str:
        """A word of warning where the one that predicts better reads more, by half a point."""
        from experiments.decoding.activation_judge import TOLERANCE, bought

        difference, read = self.less(one, other), [self.seen[v].read for v in (one, other)]
        more = f"; unequal: the better one reads over {TOLERANCE:.1%} more"
        return more if bought(difference, *read) else ""

    @property
    def units(self) -> dict[str, np.ndarray]:
        """Nats a token of every window, and 1 for every right item, by variant."""
        found = {str(variant): one.nll for variant, one in self.seen.items()}
        return found | {f"{v}, right": right.astype(float) for v, right in self.right.items()}


def judged(
    sparse: "Sparse",
    variants: Iterable[Variant],
    tasks: "list[Task] | None" = None,
    asked: Iterable[Variant] = (),
) -> Losses:
    """Losses of all variants on the same tokens, and answers of those that are `asked`.

    Raises:
        BadInput: a method is unknown, or cannot be put into this model.
    """
    from experiments.parts.r_sparse.asked import correct

    found, asked = Losses({}, {}, {}), set(asked)

    def ask(variant: Variant) -> None:
        if tasks and variant in asked:
            items = sum(len(task.items) for task in tasks)
            with sparse.progress.task(f"{variant}, questions", items) as advance:
                found.right[variant] = correct(sparse.work, tasks, advance)

    for variant in dict.fromkeys(variants):
        one = sparse.seen(variant.method, variant.sparsity, lambda v=variant: ask(v))
        if isinstance(one, str):
            found.left[variant] = one
        else:
            found.seen[variant] = one
    return found


def beside(
    claim: str, losses: Losses, own: Variant, others: Sequence[Variant], region: Region = ABOVE_ZERO
) -> Iterator[Finding]:
    """How much worse than `own` each of the others predicts, and answers: those that were built."""
    for other in others:
        if own in losses.seen and other in losses.seen:
            yield Finding(
                claim=claim,
                case=f"{own} against {other}",
                effect=losses.less(other, own),
                unit="nats a token by which it predicts better",
                over="windows",
                claimed=region,
                control=losses.reads(other, own) + losses.unequal(other, own),
            )
        if own in losses.right and other in losses.right:
            share = losses.right[other].mean()
            yield Finding(
                claim=claim,
                case=f"{own} against {other}, questions",
                effect=losses.more_right(own, other),
                unit="of the questions that it answers more",
                over="questions",
                claimed=region,
                control=f"{other} answers {share:.1%}; {losses.reads(other, own)}",
            )


def table(losses: Losses, own: str = OWN) -> Table:
    """A row a variant, beside dense and beside `own` at the same sparsity."""
    rows = []
    for variant, one in losses.seen.items():
        rival = Variant(own, variant.sparsity)
        paired = rival in losses.seen and variant not in (rival, DENSE)
        rows.append(
            (
                str(variant),
                f"{np.exp(min(one.nll.mean(), 700.0)):.4g}",
                "–" if variant == DENSE else signed(losses.less(variant, DENSE)),
                signed(losses.less(variant, rival)) if paired else "–",
                f"{losses.right[variant].mean():.1%}" if variant in losses.right else "–",
                f"{one.planned:.1%}",
                f"{one.read:.1%}",
            )
        )
    rows += [(str(variant), why, *["–"] * 5) for variant, why in losses.left.items()]
    n = len(losses.seen[DENSE].nll)
    items = {len(right) for right in losses.right.values()}
    asked = f" Right: of {items.pop()} questions." if items else ""
    return Table(
        ("model", "perplexity", "less dense, nats", f"less {own}", "right", "budget", "read"),
        rows,
        f"Sparse tokens only, 95% intervals over n = {n} windows, paired.{asked} Budget: numbers "
        "of the linears that a sparse token may read, true shapes, factors whole; read: counted."
        f"{of_few(n)}",
    )


def signed(found: Interval) -> str:
    """With its sign."""
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def lines(losses: Losses) -> dict[str, Any]:
    """By method: sparsities, and nats above dense with their intervals; for `over_sparsities`."""
    found: dict[str, Any] = {}
    for variant in losses.seen:
        if variant.sparsity:
            above = losses.less(variant, DENSE)
            points = found.setdefault(variant.method, [])
            points.append([variant.sparsity, above.mean, above.low, above.high])
    return found


def over_sparsities(data: Mapping[str, Any], name: str, caption: str) -> Picture:
    """Nats above the dense model over the share that is not read, a line a method."""
    from experiments.pictures import figure

    canvas, (axes,) = figure(7.4, 4.6)
    for method, points in data.items():
        x, mean, low, high = np.array(sorted(points)).T
        error = np.clip([mean - low, high - mean], 0, None)
        axes.errorbar(100 * x, mean, error, marker="o", capsize=3, label=method)
    axes.set(xlabel="% of the linears' bytes not read", ylabel="nats a token above dense")
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.legend()
    return Picture(name, canvas, caption)
