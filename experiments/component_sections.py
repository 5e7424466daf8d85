"""The page of `ctr experiment components`: tables, and sentences that carry the verdicts."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from experiments import pictures
from experiments.effects import number, percent
from experiments.intervals import Interval, interval
from experiments.recalls import shown
from experiments.report import Picture, Section, Table

if TYPE_CHECKING:
    from experiments.component_scores import LayerErrors
    from experiments.components import Left, Result

A3, WEIGHTS, RANDOM = "A3", "weights alone", "random"
KINDS = {"svd": "QK, joint SVD", "pairs": "QK, rotary pairs", "ov": "OV, joint SVD"}


def sections(result: "Result") -> list[Section]:
    """One section a question that was asked."""
    found = []
    if result.errors:
        found.append(_scores(result))
    a3 = {n: left for n, left in result.found.items() if "removed" in n}
    if a3:
        found.append(_perplexities(result, a3))
    pruned = {n: left for n, left in result.found.items() if "sink heads" in n}
    if pruned:
        found.append(_pruned(result, pruned))
    return found


def _scores(result: "Result") -> Section:
    errors = result.errors
    text = [
        f"{percent(result.config.score_compression)} of every head's coordinates are removed, the "
        "model stays dense otherwise. Error: √(E Δ²/E s²), over all heads of a layer."
    ]
    for kind, name in KINDS.items():
        if getattr(errors[0].found[A3], kind) is None:
            continue
        for text_index, where in enumerate(("the text it was fitted to", "other text")):
            own = _column(errors, A3, kind, text_index)
            for control in (WEIGHTS, RANDOM):
                other = _column(errors, control, kind, text_index)
                below = int((own < other).sum())
                text.append(
                    f"{name}, on {where}: A3's error is below that of “{control}” on {below} of "
                    f"{len(own)} layers; their ratio is {interval(own / other)} (mean over "
                    f"layers, 95%), at worst {(own / other).max():.2f}."
                )
    columns = [k for k in KINDS if getattr(errors[0].found[A3], k) is not None]
    rows = [
        (
            str(layer.layer),
            *(
                " / ".join(f"{getattr(layer.found[name], kind)[side]:.3f}" for name in layer.found)
                for kind in columns
                for side in (0, 1)
            ),
        )
        for layer in errors
    ]
    heads = [f"{KINDS[k]}, {side}" for k in columns for side in ("fitted", "other text")]
    caption = (
        "Errors of A3 / by weights alone (R = I: plain SVD, plain selection) / at random. Joint "
        "SVD: of scores as if nothing were rotated, tokens independent, the distribution that "
        "the closed form is optimal in. Rotary pairs: of the model's own causal scores, on the "
        "first 4 windows of each text. OV: of what heads write. "
        f"n = {result.config.sizes.calibration} windows fitted to and "
        f"{result.config.sizes.windows} of other text."
    )
    return Section("Attention scores", text, [Table(("layer", *heads), rows, caption)])


def _column(errors: "list[LayerErrors]", name: str, kind: str, side: int) -> np.ndarray:
    return np.array([getattr(layer.found[name], kind)[side] for layer in errors])


def _perplexities(result: "Result", found: "dict[str, Left]") -> Section:
    text = []
    for rho in result.config.compressions:
        end = f", {percent(rho)} removed"
        own = found[f"A3{end}"]
        others = {n: left for n, left in found.items() if n.endswith(end) and "control" in n}
        worse = sum(left.nll.low > own.nll.high for left in others.values())
        better = sum(left.nll.high < own.nll.low for left in others.values())
        text.append(
            f"With {percent(rho)} of the weights removed A3 costs {_signed(own.nll)} nats a token "
            f"(perplexity {number(own.ppl)}) and keeps {shown(own.recalls.first_recall)} of the "
            "first-token sinks; "
            + "; ".join(
                f"{_short(n)} {_signed(left.nll)} and {shown(left.recalls.first_recall)}"
                for n, left in others.items()
            )
            + f". {worse} of {len(others)} controls lose clearly more and {better} clearly less "
            "(intervals apart)."
        )
    return Section("A3 at equal budget", text, [_table(result, found)], [_forest(found, "a3")])


def _pruned(result: "Result", found: "dict[str, Left]") -> Section:
    chosen = result.chosen
    assert chosen is not None
    text = [
        f"{chosen.query} of {chosen.queries} heads keep a first-token sink (alpha above "
        f"{result.config.epsilon} in 90% of the calibration windows); of {chosen.keys} key heads "
        f"{chosen.key} serve such heads alone and are pruned with them."
    ]
    for name, left in found.items():
        if "control" in name:
            continue
        stem = name.rsplit(", ", 1)[0]
        controls = {n: c for n, c in found.items() if n.startswith(f"{stem}, control")}
        text.append(
            f"{stem}: {_signed(left.nll)} nats a token, accuracy "
            f"{_kept(result.accuracy, left):.0%} of the dense model's, first-token sinks "
            f"{shown(left.recalls.first_recall)}; "
            + "; ".join(
                f"{_short(n.rsplit(', ', 1)[1])} {_signed(c.nll)}, "
                f"{_kept(result.accuracy, c):.0%}, {shown(c.recalls.first_recall)}"
                for n, c in controls.items()
            )
            + f". {_apart(left, list(controls.values()))}"
        )
    return Section(
        "Sink heads by few columns", text, [_table(result, found)], [_forest(found, "sink-heads")]
    )


def _apart(own: "Left", controls: "list[Left]") -> str:
    """Whether it matters which columns stay, by intervals that do not touch."""

    def count(less: Callable[["Left"], bool]) -> int:
        return sum(map(less, controls))

    more = count(lambda c: c.nll.low > own.nll.high)
    fewer = count(lambda c: c.nll.high < own.nll.low)
    first = own.recalls.first_recall
    lost = 0
    if first is not None:
        shares = [c.recalls.first_recall for c in controls]
        lost = sum(share is not None and share.high < first.low for share in shares)
    return (
        f"Of {len(controls)} controls {more} lose clearly more (intervals apart), {fewer} clearly "
        f"less; {lost} keep clearly fewer first-token sinks."
    )


def _table(result: "Result", found: "dict[str, Left]") -> Table:
    dense = result.found["dense"]
    rows = [
        (
            name,
            f"{left.density:.3f}",
            f"{left.whole:.3f}",
            number(left.ppl),
            _signed(left.nll),
            f"{_kept(result.accuracy, left):.0%}",
            shown(left.recalls.first_recall),
            shown(left.recalls.later_recall),
            shown(left.recalls.later_precision),
        )
        for name, left in {"dense": dense, **found}.items()
    ]
    caption = (
        f"Paired with the dense model, n = {dense.nll.n} windows of {result.config.sizes.context} "
        f"tokens (loss, accuracy) and {result.config.sizes.sequences} sequences of "
        f"{result.config.sizes.seq} (sinks) of {result.inputs.text}; 95% intervals. Density: of "
        "the matrices replaced; of all: of all weights in the blocks. Accuracy: share of tokens "
        f"that were the likeliest, the dense model's {result.accuracy:.3f}. Sinks: of the dense "
        "model's set of (layer, head, token), guarded later tokens apart."
    )
    columns = (
        "", "density", "of all", "perplexity", "Δ nats a token", "accuracy kept",
        "first sinks, recall", "later sinks, recall", "later sinks, precision",
    )  # fmt: skip
    return Table(columns, rows, caption)


def _forest(found: "dict[str, Left]", name: str) -> Picture:
    lefts = list(found.values())
    return Picture(
        f"components-{name}",
        pictures.forest(
            list(found),
            np.array([left.nll.mean for left in lefts]),
            np.array([left.nll.low for left in lefts]),
            np.array([left.nll.high for left in lefts]),
            "Δ nats a token against the dense model",
            "Loss against the dense model",
        ),
        f"Loss against the dense model, paired over n = {lefts[0].nll.n} windows, 95% intervals.",
    )


def _kept(dense: float, left: "Left") -> float:
    """Share of the dense model's accuracy that is left."""
    return 1 + left.accuracy.mean / dense if dense else float("nan")


def _signed(found: Interval) -> str:
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _short(name: str) -> str:
    return name.removeprefix("control: ").split(",")[0]
