"""Sink-aware compression: what sinks read, and what they write, is kept exactly.

Ŵ = M(W) + (W - M(W)) P Pᵀ, so that Ŵ P = W P whatever M does. P spans the means of what the
linear reads at first tokens, at later sinks and at ordinary tokens. In W_Q and W_K that keeps
where sinks are looked for, in W_V the tags they hold; what W_O reads at ordinary tokens is
mostly what their sinks wrote, so there it is the mean tag. The term costs p (d_out + d_in)
numbers, and M gets so many fewer.

Beside it the rows of W_O and W_down that write to outlier features of the stream, which massive
activations are made of, can be kept whole: a few of d_out.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bridge.component import Component
from bridge.equal import at_most
from bridge.grouped import Grouped
from bridge.method import Method
from bridge.operators import LinearOperator, LowRank, Sum, Weight
from bridge.planned import planned
from bridge.sink_tokens import FIRST, KINDS, LATER, ORDINARY
from bridge.sliced import Sliced
from bridge.statistics import diagonal_moment
from bridge.stream import hooked
from mech.errors import BadInput

WRITERS = ("o", "down")
State = dict[str, Grouped]


@dataclass(frozen=True)
class Protected:
    """A component method: `base` at a smaller budget, and the protected part exactly.

    The total is at most what `base` would spend. `base` has to read the diagonal moment (Wanda,
    OATS); it is given that of what P leaves, Σ_t (x_tj - μ_gj)² over the protected groups.
    """

    base: Method
    """At the whole budget; its density or compression is lowered to make room."""
    labels: Sequence[Int[Tensor, "_batch _seq"]] = field(repr=False, compare=False)
    """One tensor a calibration batch: FIRST, LATER or ORDINARY (`bridge.sink_tokens`)."""
    groups: tuple[int, ...] = (ORDINARY, FIRST, LATER)
    """Whose means are protected."""
    rows: tuple[int, ...] = ()
    """Outlier features of the stream: these rows of W_O and W_down are kept whole."""
    random: int | None = None
    """A control: random directions instead, as many, from this seed."""
    digest: str = field(init=False)
    """SHA-256 of the labels: two runs with other labels are other runs."""

    def __post_init__(self):
        if self.base.statistic is not diagonal_moment:
            raise BadInput(f"{self.base!r} does not read E[x²]: protect Wanda or OATS")
        told = b"".join(label.numpy().tobytes() for label in self.labels)
        object.__setattr__(self, "digest", hashlib.sha256(told).hexdigest()[:16])

    @contextmanager
    def watch(self, component: Component) -> Iterator[State]:
        """Sums by group of what each linear reads; one that reads the same tensor shares them."""
        widths = {linear.in_features for linear in component.linears.values()}
        empty = {d_in: Grouped.empty(len(KINDS), d_in) for d_in in widths}
        state = {role: empty[linear.in_features] for role, linear in component.linears.items()}
        batch = dict.fromkeys(state, 0)
        last: list[Any] = [None, None, None]  # a tensor, what it was added to, and the sum

        def watcher(role: str):
            def hook(_, args, kwargs):
                x = args[0] if args else kwargs["input"]
                before = state[role]
                shared = last[0] is x and last[1] is before
                after = last[2] if shared else before.with_inputs(*self._read(role, batch, x))
                last[:] = x, before, after
                batch[role] += 1
                state[role] = after

            return hook

        with hooked([(linear, "pre", watcher(r)) for r, linear in component.linears.items()]):
            yield state

    def _read(self, role: str, batch: Mapping[str, int], x: Tensor) -> tuple[Tensor, Tensor]:
        number = batch[role]
        # A shared expert reads the tokens of all windows in a row.
        flat = x.ndim == 2 and number < len(self.labels) and len(x) == self.labels[number].numel()
        if number >= len(self.labels) or not (flat or self.labels[number].shape == x.shape[:-1]):
            raise BadInput(
                f"labels do not fit what {role} reads in batch {number}: give one tensor a "
                "calibration batch, of the shape of its tokens"
            )
        return x.flatten(0, -2), self.labels[number].flatten()

    def __call__(self, component: Component, state: State) -> Mapping[str, LinearOperator]:
        generator = torch.Generator().manual_seed((self.random or 0) + 1009 * component.layer)
        return {
            role: self._operator(linear.weight.detach(), state[role], role, generator)
            for role, linear in component.linears.items()
        }

    def _operator(
        self, weight: Weight, seen: Grouped, role: str, generator: torch.Generator
    ) -> LinearOperator:
        d_out, d_in = weight.shape
        basis = seen.basis(self.groups).to(weight.device)
        if self.random is not None:
            noise = torch.randn(basis.shape, generator=generator, dtype=torch.float64)
            basis = torch.linalg.qr(noise).Q.to(weight.device)
        rows = self.rows if role in WRITERS else ()
        shape = (int(d_out), int(d_in))
        allowed = planned(self.base, [shape]).kept
        allowed -= basis.shape[1] * (d_out + d_in) + len(rows) * d_in
        method = at_most(self.base, [shape], allowed)
        centred = () if self.random is not None else self.groups
        operator = method(weight, seen.moment(centred))
        return kept_exactly(operator, weight, basis, rows)


def kept_exactly(
    operator: LinearOperator,
    weight: Weight,
    basis: Float[Tensor, "d_in p"],
    rows: Sequence[int] = (),
) -> LinearOperator:
    """Ŵ + (W - Ŵ) P Pᵀ, and then the rows of W at `rows`: Ŵ P = W P and Ŵ[rows] = W[rows].

    `basis`: orthonormal columns P. The terms stand behind those of `operator`. Arithmetic is in
    float64, the terms are in the weight's format, so that both hold to its rounding.
    """
    terms = operator.each() if isinstance(operator, Sum) else [operator]
    missing = weight.double() - operator.dense().double()
    if basis.shape[1]:
        left = missing @ basis
        terms.append(LowRank(left.to(weight.dtype), basis.mT.to(weight.dtype)))
        missing = missing - left @ basis.mT
    if rows:
        index = torch.tensor(sorted(rows), device=weight.device)
        terms.append(Sliced(missing[index].to(weight.dtype), shape=operator.shape, rows=index))
    whole = terms[0] if len(terms) == 1 else Sum(terms)
    whole.note = operator.note
    return whole
