"""CATS: up and down are read where the gate's activation is large (Lee et al. 2024)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bridge.decode.baselines.gated_mlp import GatedMLP, activation, activations, gated_mlps
from bridge.decode.inputs import Inputs, quantile
from bridge.decode.phase import first_gated
from bridge.decode.reading import Ids
from bridge.decode.reservoir import Reservoir
from bridge.sites import linears
from bridge.stream import evaluating, hooked


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


@torch.no_grad()
def settled(
    model: nn.Module,
    levels: Mapping[str, float],
    densities: Mapping[str, float],
    batches: Sequence[Ids],
    *,
    sparse_from: float = 0.0,
    keep: int = 2048,
    seed: int = 0,
) -> dict[str, float]:
    """t ← the quantiles of |act(gate x)| in the model that CATS has sparsified by `levels`.

    Those of the dense model read less: activations behind others that are left out are smaller.
    The model may be gated beside (inside `sparsified`). `keep` tokens at most, uniform, seeded;
    only those from ⌊T sparse_from⌋ of a sequence of T. As `bridge.decode.settled` does for linears.
    """
    drawn = torch.Generator().manual_seed(seed)
    found = {name: Reservoir(keep) for name in levels}

    def hook(name: str, first: int, keys: Tensor) -> Any:
        def after(gate: Thresholded, args: tuple, _: Tensor) -> None:
            a = gate.act(args[0])[:, first:].flatten(0, 1)
            found[name].offer(keys, a.abs(), torch.zeros(len(a), 2, dtype=torch.int64))

        return after

    with cats(model, levels, sparse_from=sparse_from) as placed, evaluating(model):
        acts = {mlp.name: activation(model, mlp.name) for mlp in placed.mlps}
        for ids in batches:
            first = first_gated(ids.shape[1], sparse_from)
            keys = torch.rand(ids[:, first:].numel(), generator=drawn, dtype=torch.float64)
            with hooked([(act, "post", hook(name, first, keys)) for name, act in acts.items()]):
                model(input_ids=ids, use_cache=False)
    return {name: quantile(found[name].rows()[0], 1 - densities[name]) for name in levels}
