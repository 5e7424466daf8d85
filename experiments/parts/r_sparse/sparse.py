"""A model that reads a part of its weights a token: methods of `ctr experiment activation`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan
from typing import TYPE_CHECKING

from experiments.parts.work import SMALLEST, Amounts
from experiments.progress import Progress
from experiments.settings import between, some, within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    import numpy as np
    from jaxtyping import Float

    from bridge.decode.inputs import Inputs
    from bridge.decode.plan import Plan
    from experiments.decoding.activation_measure import Seen
    from experiments.decoding.activation_ways import Given, Made
    from experiments.parts.work import Work

WINDOWS = Amounts(calibration=8, windows=10, context=192)
ONE_BLOCK = replace(SMALLEST, blocks=1)
DENSE = "dense"
GROUP = 128  # weights that share a scale in INT4


@dataclass(frozen=True)
class Gating:
    """Which tokens are sparse, and what thresholds are taken of."""

    sparse_from: float = 0.5
    """The share of every sequence that is dense, as a prompt; only tokens after it are scored."""
    settle: int = 1
    """How often thresholds are taken again, of what is read in the sparse model: those of the
    dense model, as published, read less than the budget allows. 0: never."""
    settling: int = 4
    """Calibration sequences that thresholds are settled on, at most."""
    keep: int = 2048
    """Tokens whose inputs are kept, of every linear: thresholds and factors are taken of them."""
    seed: int = 0
    """Of calibration samples, of GRIFFIN's draws and of searches."""

    def check(self, sparsities: Sequence[float]) -> None:
        """Raises BadOption where nothing would be sparse, or nothing be read, at one of them."""
        some("sparsities", sparsities)
        for sparsity in sparsities:
            between("sparsities", sparsity, 0, 1)
        within("sparse-from", self.sparse_from, 0, 0.95)
        within("settle", self.settle, 0)
        within("settling", self.settling, 1)
        within("keep", self.keep, 2)


SETTLED, AS_PUBLISHED = Gating(), Gating(settle=0)
QUICK = Gating(settling=2, keep=128)


@dataclass(frozen=True)
class Sparse:
    """A model and its calibration; methods are put into it one at a time.

    Budgets are numbers that a token may read of the linears, true shapes, factors whole.
    """

    work: "Work"
    gating: Gating
    progress: Progress

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(d_out, d_in) of every linear."""
        from bridge.sites import linears

        found = linears(self.work.loaded.model)
        return {name: (m.out_features, m.in_features) for name, m in found.items()}

    @cached_property
    def read(self) -> "Inputs":
        """What the dense linears read of the calibration text."""
        from bridge.decode.inputs import calibrate
        from experiments import measure

        batches = self.work.calibration.split(measure.AT_ONCE)
        keep, seed = self.gating.keep, self.gating.seed
        with self.progress.task("calibrate", len(batches)) as advance:
            model = self.work.loaded.model
            return calibrate(model, batches, keep=keep, seed=seed, advance=advance)

    @cached_property
    def given(self) -> "Given":
        """What methods ask for; TEAL's greedy is not among them."""
        from experiments import measure
        from experiments.decoding.activation_settle import Settling
        from experiments.parts.r_sparse.svds import Once

        gating, model = self.gating, self.work.loaded.model
        settling = Settling(
            model,
            lambda: self.work.calibration[: gating.settling].split(measure.AT_ONCE),
            gating.settle,
            gating.sparse_from,
            gating.keep,
            gating.seed,
            self.progress,
        )
        return Once(model, self.shapes, lambda: self.read, list, settling, seed=gating.seed)

    def losses(self, name: str = DENSE) -> "Float[np.ndarray, ' windows']":
        """Nats a scored token of each window, of the model as it stands."""
        from experiments.decoding import activation_measure

        work = self.work
        with self.progress.task(name, len(work.windows)) as advance:
            return activation_measure.losses_after(
                work.loaded.model, work.windows, work.bos_id, self.gating.sparse_from, advance
            )

    def seen(
        self, method: str, sparsity: float, inside: Callable[[], object] = lambda: None
    ) -> "Seen | str":
        """Losses and what was really read; in words why not, where it cannot read so little.

        `inside` is called after them with the method in place, for what else is to be measured;
        what is read for that is counted as well.
        """
        from experiments.decoding import activation_ways
        from experiments.decoding.activation_measure import Seen
        from mech.errors import BadInput

        if method == DENSE:
            dense = Seen(self.losses(), 1.0, 1.0)
            inside()
            return dense
        try:
            made = activation_ways.made(self.given, method, sparsity)
        except BadInput as error:
            if method.partition("-")[0] not in ("cats", "griffin"):
                raise
            return str(error)
        return self._measured(method, made, inside)

    def under(self, name: str, plan: "Plan") -> "Seen":
        """The same under a plan, fitted and settled as all are."""
        from experiments.decoding import activation_ways

        return self._measured(name, activation_ways.of_plan(self.given, plan), lambda: None)

    def _measured(self, name: str, made: "Made", inside: Callable[[], object]) -> "Seen":
        from experiments.decoding import activation_ways
        from experiments.decoding.activation_measure import Seen

        with activation_ways.applied(self.given, made, self.gating.sparse_from) as realised:
            nll = self.losses(name)
            inside()
        planned = realised.share if isnan(made.planned) else made.planned
        return Seen(nll, planned, realised.share)


@contextmanager
def in_int4(work: "Work", progress: Progress) -> Iterator[None]:
    """The model with weights of GPTQ in INT4, groups of 128, inside; as it was after."""
    from bridge.compress import compress
    from bridge.compression import restore
    from bridge.fold import folded
    from bridge.methods.gptq import GPTQ
    from bridge.quantizers import RoundToNearest
    from bridge.sites import linears, place
    from experiments import measure

    model, batches = work.loaded.model, work.calibration.split(measure.AT_ONCE)
    with progress.task("GPTQ", len(linears(model))) as advance:
        done = compress(model, GPTQ(RoundToNearest(4, GROUP)), batches, advance=advance)
    place(model, folded(model))
    try:
        yield
    finally:
        restore(model, done)
