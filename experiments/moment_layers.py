"""Output errors of several methods, linear by linear: calibrated on one text, read on another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from bridge.method import Method
from bridge.operators import Weight
from bridge.sites import linears
from bridge.splitting import FullSVD, Split
from bridge.splitting.split import thresholded
from bridge.splitting.subspace import orthonormal
from bridge.statistics import SecondMoment, diagonal_moment, nothing, second_moment
from bridge.stream import evaluating, hooked
from experiments.progress import Advance


class Errors(NamedTuple):
    """√(tr(E R Eᵀ) / tr(W R Wᵀ)) with R of the calibration tokens, and of others."""

    method: str
    calibration: float
    held_out: float


class Layer(NamedTuple):
    """One linear of the dense model, by every method."""

    name: str
    errors: list[Errors]


@dataclass(frozen=True)
class NearlySVD(FullSVD):
    """The iterations of `FullSVD` with the top of a carried subspace in the place of each SVD.

    `extra` more columns than the rank are carried, one power step an iteration; the Gram matrix
    of what is left is solved exactly. For when 80 SVDs of every matrix of a model are too many.
    """

    extra: int = 32

    def __call__(self, target, *, rank, keep, iterations, scale=None, of=None) -> Split:
        width = min(rank + self.extra, *target.shape)
        generator = torch.Generator().manual_seed(0)
        basis = torch.randn(target.shape[1], width, generator=generator).to(target)
        sparse, left, right = torch.zeros_like(target), target[:, :0], target[:0]
        for number in range(iterations):
            rest = target - sparse
            for _ in range(1 if number else 4):
                basis = orthonormal(rest.mT @ (rest @ orthonormal(basis)))
            image = rest @ basis
            vectors = torch.linalg.eigh(image.mT @ image).eigenvectors
            right = (basis @ vectors[:, width - rank :]).mT
            left = rest @ right.mT
            sparse = thresholded(target - left @ right, keep, of)
        return Split(left, right, sparse)


def layers(
    model: nn.Module,
    methods: Mapping[str, Method],
    calibration: Int[Tensor, "windows seq"],
    held_out: Int[Tensor, "windows seq"],
    select: str,
    advance: Advance,
) -> list[Layer]:
    """Every selected linear of the dense model, replaced by every method in turn, on its own."""
    chosen = linears(model, select)
    fitted, others = (_moments(model, chosen, windows) for windows in (calibration, held_out))
    found = []
    for name, linear in chosen.items():
        weight = linear.weight.detach()
        errors = []
        for method_name, method in methods.items():
            dense = method(weight, _statistic(method, fitted[name])).dense()
            pair = (_error(weight, dense, seen[name]) for seen in (fitted, others))
            errors.append(Errors(method_name, *pair))
        found.append(Layer(name, errors))
        advance(name)
    return found


def _moments(
    model: nn.Module, chosen: Mapping[str, nn.Linear], windows: Int[Tensor, "windows seq"]
) -> dict[str, SecondMoment]:
    seen = {name: second_moment.init(linear.in_features) for name, linear in chosen.items()}

    def watcher(name: str):
        def hook(_, args, kwargs):
            x = args[0] if args else kwargs["input"]
            seen[name] = second_moment.update(seen[name], x.flatten(0, -2))

        return hook

    hooks = [(linear, "pre", watcher(name)) for name, linear in chosen.items()]
    with evaluating(model), torch.no_grad(), hooked(hooks):
        for group in windows.split(4):
            model(input_ids=group, use_cache=False, logits_to_keep=1)
    return seen


def _statistic(method: Method, seen: SecondMoment):
    if method.statistic is second_moment:
        return seen
    if method.statistic is diagonal_moment:
        return seen.diagonal
    return nothing.init(len(seen.total))


def _error(weight: Weight, dense: Weight, seen: SecondMoment) -> float:
    def size(matrix: Weight) -> Tensor:
        return ((matrix @ seen.total) * matrix).sum()

    whole = weight.double()
    return float((size(whole - dense.double()) / size(whole)).sqrt())
