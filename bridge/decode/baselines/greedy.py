"""TEAL's block-wise greedy: more sparsity where the block's output suffers least."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bridge.decode.inputs import Inputs
from bridge.decode.phase import first_gated
from bridge.decode.plan import Plan, Setting
from bridge.sites import block_of, linears
from bridge.stream import Call, Stream, evaluating, hooked, record
from mech.blocks import decoder_blocks
from mech.errors import BadInput

STEP = 0.05


class Raised(NamedTuple):
    """One step: a linear, and how much sparser it became."""

    name: str
    by: float


class Options(NamedTuple):
    """How errors are taken.

    step: bytes of a step, as a share of a d_model x d_model matrix. sparse_from: tokens before
    this share of a sequence stay dense. scored: the share of the tokens, from the end, whose
    error counts. lazy: an error that an earlier step found is taken for a lower bound, so that
    a candidate is tried again only while it would win; the same path where errors grow with
    every step, which they need not.
    """

    step: float = STEP
    sparse_from: float = 0.5
    scored: float = 0.25
    lazy: bool = False


def paths(
    model: nn.Module,
    inputs: Inputs,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    most: float,
    options: Options = Options(),  # noqa: B008  (immutable)
    advance: Callable[[str], None] | None = None,
) -> list[list[Raised]]:
    """The steps of every block, until a share `most` of its bytes is not read.

    Liu et al. 2024, arXiv:2408.14690, algorithm 1, with true shapes. Each step raises the
    sparsity of one linear p by step d_model² / (d_out d_in): the one that leaves the smallest
    error E = mean over channels and sequences of ‖(y - ŷ)_t‖₂ over the scored tokens t, y the
    block's output on the dense model's stream and ŷ the same with inputs of linears zeroed where
    |x_j| <= the s_p-quantile of `inputs`. A path to `most` holds the paths to all less:
    `plan` cuts it.
    """
    chosen = linears(model)
    found: list[list[Raised]] = []
    with torch.no_grad(), evaluating(model):
        recording = record(model, batches)
        resid = recording.resid
        for layer, block in enumerate(decoder_blocks(model)):
            here = {name: m for name, m in chosen.items() if block_of(name) == layer}
            work = _Block(block, here, resid, recording.calls[layer], inputs, options)
            found.append(work.path(most))
            resid = work.outputs
            if advance is not None:
                advance(f"layers.{layer}")
    return found


def plan(
    paths: Sequence[Sequence[Raised]], shapes: Mapping[str, tuple[int, int]], sparsity: float
) -> Plan:
    """Settings of `paths` cut where a share `sparsity` of each block's bytes is not read, exactly.

    The last step is cut short. Raises BadInput where a path does not reach so far.
    """
    settings = {}
    for layer, path in enumerate(paths):
        here = {name: shapes[name] for name in shapes if block_of(name) == layer}
        size = {name: d_out * d_in for name, (d_out, d_in) in here.items()}
        left, reached = sparsity * sum(size.values()), dict.fromkeys(here, 0.0)
        for name, by in path:
            taken = min(by, left / size[name])
            reached[name] += taken
            left -= taken * size[name]
        if left > 1e-6 * sum(size.values()):
            raise BadInput(f"layers.{layer}: its path ends before a sparsity of {sparsity:g}")
        settings |= {name: Setting(min(s, 1.0)) for name, s in reached.items()}
    return settings


class _Block:
    """One block, its dense outputs, and errors of sparser ones."""

    def __init__(
        self,
        block: nn.Module,
        linears: Mapping[str, nn.Linear],
        resid: Sequence[Stream],
        calls: list[Call],
        inputs: Inputs,
        options: Options,
    ):
        self.block, self.resid, self.calls = block, resid, calls
        self.inputs, self.options = inputs, options
        self.linears = linears
        self.size = {name: linear.weight.numel() for name, linear in linears.items()}
        self.thresholds: dict[tuple[str, float], float] = {}
        self.step = options.step * resid[0].shape[-1] ** 2
        self.outputs = self._run()

    def path(self, most: float) -> list[Raised]:
        """Steps until `most` of the bytes are left out."""
        sparsities = dict.fromkeys(self.size, 0.0)
        errors: dict[str, float] = {}
        fresh: set[str] = set()
        steps: list[Raised] = []
        left = most * sum(self.size.values())
        while left > 1e-6 * self.step:
            by = {n: min(self.step / self.size[n], 1 - s) for n, s in sparsities.items()}
            able = [name for name, amount in by.items() if amount > 1e-9]
            while True:
                stale = [n for n in able if n not in fresh]
                wanted = stale if not self.options.lazy else _next(able, stale, errors)
                if not wanted:
                    break
                for name in wanted:
                    errors[name] = self.error({**sparsities, name: sparsities[name] + by[name]})
                    fresh.add(name)
            best = min(able, key=errors.__getitem__)
            steps.append(Raised(best, by[best]))
            sparsities[best] = min(1.0, sparsities[best] + by[best])
            left -= by[best] * self.size[best]
            fresh.clear()
        return steps

    def error(self, sparsities: Mapping[str, float]) -> float:
        """E of the block at these sparsities."""
        with self._gated(sparsities):
            outputs = self._run()
        total, count = 0.0, 0
        for dense, sparse in zip(self.outputs, outputs, strict=True):
            scored = max(1, round(self.options.scored * dense.shape[1]))
            norms = (dense - sparse)[:, -scored:].float().norm(dim=1)
            total, count = total + float(norms.sum()), count + norms.numel()
        return total / count

    def _run(self) -> list[Stream]:
        pairs = zip(self.calls, self.resid, strict=True)
        return [call.replay(self.block, resid) for call, resid in pairs]

    @contextmanager
    def _gated(self, sparsities: Mapping[str, float]) -> Iterator[None]:
        hooks = [
            (self.linears[name], "pre", self._zero(self._threshold(name, share)))
            for name, share in sparsities.items()
            if share > 0
        ]
        with hooked(hooks):
            yield

    def _threshold(self, name: str, share: float) -> float:
        if (name, share) not in self.thresholds:
            self.thresholds[name, share] = self.inputs.quantile(name, share)
        return self.thresholds[name, share]

    def _zero(self, threshold: float) -> Callable:
        def before(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            x: Float[Tensor, "batch seq d_in"] = args[0]
            kept = ~(x.abs() <= threshold)
            kept[:, : first_gated(x.shape[1], self.options.sparse_from)] = True
            return (torch.where(kept, x, 0), *args[1:]), kwargs

        return before


def _next(able: list[str], stale: list[str], errors: Mapping[str, float]) -> list[str]:
    """Who is to be tried: all that were never; then the one that would win, while it is stale."""
    unseen = [name for name in able if name not in errors]
    if unseen:
        return unseen
    best = min(able, key=errors.__getitem__)
    return [best] if best in stale else []
