"""Methods that stand in the model one after the other, and what each predicts of the windows."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from bridge.sites import linears
from experiments import component_variants
from experiments.component_variants import AnyMethod
from experiments.intervals import Interval
from experiments.parts.work import Work
from experiments.progress import Advance, Progress
from experiments.recalls import Ratio, share

DENSE = "dense"


class Predicted(NamedTuple):
    """nll: nats a token, a mean a window. hits: share of the tokens that were the likeliest.

    kept: share of the numbers in all linears of the blocks that are left.
    """

    nll: Float[np.ndarray, " windows"]
    hits: Float[np.ndarray, " windows"]
    kept: float = 1.0

    @property
    def ppl(self) -> float:
        """Perplexity; a broken model's loss can be past what exp holds."""
        return float(np.exp(min(self.nll.mean(), 700.0)))


def predicted(work: Work, windows: Int[Tensor, "windows seq"], advance: Advance) -> Predicted:
    """What the model predicts as it stands."""
    nll, hits = [], []
    for window in windows:
        losses, right = component_variants.predicted(work.loaded.model, window)
        nll.append(losses)
        hits.append(right)
        advance("window")
    return Predicted(np.array(nll), np.array(hits))


def each(
    work: Work,
    methods: Mapping[str, AnyMethod],
    windows: Int[Tensor, "windows seq"],
    progress: Progress,
) -> dict[str, Predicted]:
    """The dense model, then every method in its place, by name.

    Methods of whole components see the dense model, each layer by itself; the others are fitted
    block after block on what the compressed blocks emit. Raises BadInput as the methods do.
    """
    model, text = work.loaded.model, work.calibration
    whole = sum(linear.weight.numel() for linear in linears(model).values())
    with progress.task("calibrate"):
        states = component_variants.states_of(model, list(methods.values()), text)
    with progress.task(DENSE, len(windows)) as advance:
        found = {DENSE: predicted(work, windows, advance)}
    for name, method in methods.items():
        with (
            progress.task(name, len(windows)) as advance,
            component_variants.standing(model, method, states, text) as (parameters, kept),
        ):
            after = predicted(work, windows, advance)
        found[name] = after._replace(kept=(whole - parameters + kept) / whole)
    return found


def retained(after: Predicted, dense: Predicted) -> Interval | None:
    """Share of the dense model's next-token accuracy that is left, interval over windows."""
    return share(Ratio(after.hits, dense.hits))
