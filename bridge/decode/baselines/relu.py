"""ReLU where a model has another activation, and ReLU of several phases in front of linears."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bridge.decode.baselines.cats import Cats, Thresholded
from bridge.decode.baselines.gated_mlp import activation, activations, gated_mlps
from bridge.decode.inputs import quantile
from bridge.decode.phase import first_gated
from bridge.sites import module
from bridge.stream import hooked
from mech.errors import BadInput


@contextmanager
def relufied(model: nn.Module, *, sparse_from: float = 1.0) -> Iterator[Cats]:
    """y = down(max(gate x, 0) ∘ up x): the activation swapped for ReLU, nothing trained.

    The baseline of R-Sparse (its release sets hidden_act to relu; ReLUfication proper, Mirzadeh
    et al. 2023, arXiv:2310.04564, trains afterwards). Up and down are needed where the gate is
    positive: no budget can be asked for, `reading` tells what was read. Tokens before
    ⌊T sparse_from⌋ keep the model's own activation.
    """
    found = Cats(gated_mlps(model))
    put = {
        mlp.name: _Swapped(activation(model, mlp.name), sparse_from, found) for mlp in found.mlps
    }
    with activations(model, put):
        yield found


class _Swapped(nn.Module):
    def __init__(self, act: nn.Module, sparse_from: float, found: Cats):
        super().__init__()
        self.act, self.sparse_from = act, sparse_from
        # Of what ReLU leaves, everything that is not 0 is read.
        self.relu = Thresholded(nn.ReLU(), 0.0, 0.0, found.reading)

    def forward(self, x: Float[Tensor, "*batch seq d_mlp"]) -> Float[Tensor, "*batch seq d_mlp"]:
        first = first_gated(x.shape[-2], self.sparse_from)
        return torch.cat([self.act(x[..., :first, :]), self.relu(x[..., first:, :])], dim=-2)


class Phases(NamedTuple):
    """Of one linear: |x| <= threshold falls into phases between `edges`, each with one value."""

    threshold: float
    edges: Float[Tensor, " edges"]
    values: Float[Tensor, " phases"]


def phases(x: Float[Tensor, "tokens d_in"], sparsity: float, count: int) -> Phases:
    """The s-quantile t of |x|, and `count` phases of the signed entries with |x_j| <= t.

    Phases are equally many entries each, in order of size; H_k is the mean of phase k. Raises
    BadInput for a sparsity outside [0, 1], fewer than one phase, or more phases than entries.
    """
    if not 0 <= sparsity <= 1 or count < 1:
        raise BadInput(f"sparsity {sparsity} and {count} phases: a share and at least one")
    values = x.detach().flatten().float()
    threshold = quantile(values.abs(), sparsity)
    rest = values[values.abs() <= threshold].sort().values
    if not len(rest):
        return Phases(threshold, values.new_zeros(0), values.new_zeros(1))
    if len(rest) < count:
        raise BadInput(f"{len(rest)} entries are left out: too few for {count} phases")
    parts = rest.tensor_split(count)
    edges = torch.stack([part[-1] for part in parts[:-1]]) if count > 1 else rest[:0]
    return Phases(threshold, edges, torch.stack([part.mean() for part in parts]))


def multi_phase(x: Float[Tensor, "*any"], phases: Phases) -> Float[Tensor, "*any"]:
    """x_j where |x_j| > t, else H_k, k the phase of x_j.

    With R-Sparse's observation that what a mask leaves out acts as a few biases: one H = 0 is
    TEAL, more phases come closer to x (Zhang et al. 2025, arXiv:2504.19449, section 3.1; the
    form of the phases is ours, from the description: the paper's text swaps its symbols).
    It shows what is lost, and saves nothing: W H needs all of W.
    """
    phase = torch.bucketize(x.float(), phases.edges)
    kept = ~(x.float().abs() <= phases.threshold)
    return torch.where(kept, x, phases.values[phase].to(x.dtype))


@contextmanager
def multi_phased(
    model: nn.Module, phases: Mapping[str, Phases], *, sparse_from: float = 1.0
) -> Iterator[None]:
    """`multi_phase` before every named linear, for tokens from ⌊T sparse_from⌋ on."""

    def hook(name: str) -> Any:
        def before(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            x = args[0]
            first = first_gated(x.shape[-2], sparse_from)
            other = multi_phase(x[..., first:, :], phases[name])
            return (torch.cat([x[..., :first, :], other], dim=-2), *args[1:]), kwargs

        return before

    with hooked([(module(model, name), "pre", hook(name)) for name in phases]):
        yield
