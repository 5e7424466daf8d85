"""What a gate leaves out, chosen by anything: dense products that simulate, controls included.

`bridge.decode` decodes by thresholds and reads less. Here every rule is a mask on a dense product,
so that a rule can be compared with its controls at equal bytes; the thresholds' simulation equals
`bridge.decode` (tests/experiments/test_sparse_sinks.py).
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bridge.sites import linears, place

Inputs = Float[Tensor, "batch seq d_in"]
Kept = Bool[Tensor, "batch seq d_in"]


@dataclass(frozen=True)
class Keep:
    """What one linear reads of a token, and its stand-in for the rest.

    rule "threshold": m_j = not (|x_j| <= t_j). "top": the `count` largest |x_j| / t_j of every
    token. "floor": as "threshold", but a token of which fewer than `least` channels pass reads
    its `count` largest. "random": each channel with probability `share`, anew for every token.
    "noise": the dense output and an error of the threshold's size in a random direction.
    """

    rule: str
    threshold: Float[Tensor, " d_in"]
    count: int = 0
    least: float = 0.0
    share: float = 0.0
    down: Float[Tensor, "d_in rank"] | None = None
    up: Float[Tensor, "rank d_out"] | None = None


@dataclass
class Phase:
    """The tokens of the pass that runs: which of them stay dense, and what was read of them."""

    dense: Bool[Tensor, "batch seq"] = field(default_factory=lambda: torch.zeros(1, 1).bool())
    read: Float[Tensor, "batch seq"] = field(default_factory=lambda: torch.zeros(1, 1))
    """Numbers of weights and factors, summed over the linears."""
    gates: "Mapping[str, Gate]" = field(default_factory=dict)

    def begin(self, dense: Bool[Tensor, "batch seq"]) -> None:
        """Before a pass over tokens of which `dense` are read whole."""
        self.dense, self.read = dense, torch.zeros(dense.shape, dtype=torch.float64)


class Gate(nn.Module):
    """y = W (m ∘ x) + A B ((1 - m) ∘ x) for a whole batch, m as `keep` says; W x where dense."""

    def __init__(self, linear: nn.Linear, keep: Keep, phase: Phase, seed: int):
        super().__init__()
        self.linear, self.keep, self.phase = linear, keep, phase
        self._random = torch.Generator().manual_seed(seed)
        self.kept, self.tokens = 0, 0

    @property
    def share(self) -> float:
        """Of the channels that a gated token reads, over all passes so far."""
        return self.kept / max(self.tokens * self.linear.in_features, 1)

    def forward(self, x: Inputs) -> Float[Tensor, "batch seq d_out"]:
        dense, keep = self.phase.dense, self.keep
        m = self._mask(x) | dense[..., None]
        y = self.linear(x * m)
        self._count(m, dense)
        if keep.down is not None and keep.up is not None:
            y = y + (x * ~m) @ keep.down @ keep.up
        return self._noise(x, y) if keep.rule == "noise" else y

    def _mask(self, x: Inputs) -> Kept:
        keep = self.keep
        if keep.rule == "random":
            return torch.rand(x.shape, generator=self._random) < keep.share
        m = ~(x.abs() <= keep.threshold)
        if keep.rule == "top":
            return self._largest(x)
        if keep.rule == "floor":
            starved = m.sum(dim=-1, keepdim=True) < keep.least
            return torch.where(starved, self._largest(x), m) if bool(starved.any()) else m
        return m

    def _largest(self, x: Inputs) -> Kept:
        """Of a token the `count` channels that come first as the threshold falls."""
        order = (x.abs() / self.keep.threshold.clamp(min=1e-30)).topk(self.keep.count, dim=-1)
        return torch.zeros_like(x, dtype=torch.bool).scatter_(-1, order.indices, True)

    def _noise(self, x: Inputs, y: Tensor) -> Tensor:
        whole = self.linear(x)
        size = (whole - y).norm(dim=-1, keepdim=True)
        noise = torch.randn(y.shape, generator=self._random)
        return whole + noise * (size / noise.norm(dim=-1, keepdim=True))

    def _count(self, m: Kept, dense: Bool[Tensor, "batch seq"]) -> None:
        d_out, d_in = self.linear.weight.shape
        rank = 0 if self.keep.up is None else len(self.keep.up)
        channels = m.sum(dim=-1)
        self.phase.read += channels * d_out + ~dense * (rank * (d_out + d_in))
        self.kept += int(channels[~dense].sum())
        self.tokens += int((~dense).sum())


@contextmanager
def gated(model: nn.Module, keeps: Mapping[str, Keep], seed: int = 0) -> Iterator[Phase]:
    """The model with a gate at every name, and back. `begin` the phase before every pass."""
    there = linears(model)
    phase, before = Phase(), {name: there[name] for name in keeps}
    gates = {n: Gate(before[n], keep, phase, _seed(n, seed)) for n, keep in keeps.items()}
    phase.gates = gates
    place(model, gates)
    try:
        yield phase
    finally:
        place(model, before)


def _seed(name: str, seed: int) -> int:
    """Of a linear: the same in every order of linears."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:6], "big")
