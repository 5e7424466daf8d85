"""CATS: up and down are read where the gate's activation is large (Lee et al. 2024)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bridge.decode.baselines.gated_mlp import GatedMLP, activation, activations, gated_mlps
from bridge.decode.inputs import Inputs, quantile
from bridge.decode.phase import Phase
from bridge.sites import linears


@dataclass
class Reading:
    """How many neurons were read of how many that a gated token could have read."""

    read: int = 0
    seen: int = 0

    @property
    def share(self) -> float:
        """Of neurons, over gated tokens; NaN before any."""
        return self.read / self.seen if self.seen else float("nan")


@torch.no_grad()
def thresholds(
    model: nn.Module, inputs: Inputs, densities: Mapping[str, float]
) -> dict[str, float]:
    """t of each MLP: a share `densities` of |act(gate x)| exceeds it, over tokens and neurons.

    The quantile is exact on the calibration inputs of the gate (the release takes the edge of a
    bin, of 20,000 from -2 to 2). An infinite t reads nothing.
    """
    chosen, found = linears(model), {}
    for mlp in gated_mlps(model):
        gate = chosen[mlp.gate]
        a = activation(model, mlp.name)(gate(inputs.rows(mlp.gate).to(gate.weight)))
        found[mlp.name] = quantile(a.abs().float(), 1 - densities[mlp.name])
    return found


class Thresholded(nn.Module):
    """a ∘ 1[|a| > t], a = act(x): what is zero needs no row of up and no channel of down.

    The first ⌊T sparse_from⌋ tokens of a sequence of T > 1 are left as they are.
    """

    def __init__(self, act: nn.Module, threshold: float, sparse_from: float, reading: Reading):
        super().__init__()
        self.act, self.threshold, self.sparse_from = act, threshold, sparse_from
        self.reading = reading

    def forward(self, x: Float[Tensor, "*batch seq d_mlp"]) -> Float[Tensor, "*batch seq d_mlp"]:
        a = self.act(x)
        gated = a[..., first_gated(a.shape[-2], self.sparse_from) :, :]
        kept = ~(gated.abs() <= self.threshold)
        self.reading.read += int(kept.sum())
        self.reading.seen += kept.numel()
        dense = a.shape[-2] - gated.shape[-2]
        return torch.cat([a[..., :dense, :], torch.where(kept, gated, 0)], dim=-2)


def first_gated(tokens: int, sparse_from: float) -> int:
    """The first token that is gated: ⌊T sparse_from⌋ of T > 1, and always one that comes alone."""
    return Phase(sparse_from, step=tokens == 1, seq=tokens).dense


@dataclass(frozen=True)
class Cats:
    """What `cats` put in place."""

    mlps: list[GatedMLP]
    reading: Reading = field(default_factory=Reading)


@contextmanager
def cats(
    model: nn.Module, thresholds: Mapping[str, float], *, sparse_from: float = 1.0
) -> Iterator[Cats]:
    """y = down(a' ∘ up x), a' = a where |a| > t and 0 elsewhere, a = act(gate x).

    Lee et al. 2024, arXiv:2404.08763. The gate and attention are read whole; up and down only
    where a' is not 0. `thresholds` by name of the MLP. Works inside `sparsified`, which gates the
    other linears. Only activations are replaced, and they are put back.
    """
    found = Cats([mlp for mlp in gated_mlps(model) if mlp.name in thresholds])
    put = {
        mlp.name: Thresholded(
            activation(model, mlp.name), thresholds[mlp.name], sparse_from, found.reading
        )
        for mlp in found.mlps
    }
    with activations(model, put):
        yield found
