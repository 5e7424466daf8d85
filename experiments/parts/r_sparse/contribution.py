"""How much every pair of an input channel and a singular component adds to a linear's output."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from bridge.decode.plan import Setting
from experiments.progress import Progress


class Components(NamedTuple):
    """W = Σ_i σ_i u_i v_iᵀ, σ falling."""

    left: Float[Tensor, "d_out k"]
    sizes: Float[Tensor, " k"]
    right: Float[Tensor, "d_in k"]

    @classmethod
    def of(cls, weight: Float[Tensor, "d_out d_in"]) -> "Components":
        """By the singular value decomposition, in float32 on the CPU."""
        left, sizes, right = torch.linalg.svd(weight.detach().float().cpu(), full_matrices=False)
        return cls(left, sizes, right.mT.contiguous())


class Lost(NamedTuple):
    """Of a budget, what is left out, each a share of the whole: as a map counts it, in the output.

    channels: the budget in channels alone. both: in channels and components. random: the same
    with random directions of the output in place of the leading components'.
    """

    channels_map: float
    both_map: float
    channels: float
    both: float
    random: float


class Mapped(NamedTuple):
    """A linear on one text: its map, and what a budget leaves out."""

    shares: Float[np.ndarray, "cells cells"]
    lost: Lost


def mapped(
    parts: Mapping[str, Components],
    cells: int,
    setting: Setting,
    name: str,
    x: Float[Tensor, "tokens d_in"],
) -> Mapped:
    """Both, of the named linear."""
    return Mapped(contribution_map(x, parts[name], cells), lost(x, parts[name], setting))


def contribution_map(
    x: Float[Tensor, "tokens d_in"], parts: Components, cells: int
) -> Float[np.ndarray, "cells cells"]:
    """Shares of Σ c_ji, c_ji = |x_j| σ_i |v_ji| = ‖x_j σ_i v_ji u_i‖, by ranks of j and i.

    Channels j fall with |x_j| of each token, components i with σ_i; both are cut into `cells`
    parts of (nearly) equal number, first the largest. Mean over tokens; sums to 1. Tokens that
    are zero have no shares and are left out.
    """
    size, order = x.abs().sort(dim=1, descending=True, stable=True)
    adds = (parts.sizes * parts.right.abs()).tensor_split(cells, dim=1)
    table = torch.stack([part.sum(dim=1) for part in adds], dim=1)
    parted = zip(size.tensor_split(cells, dim=1), order.tensor_split(cells, dim=1), strict=True)
    found = torch.stack([torch.einsum("tj,tjc->tc", s, table[o]) for s, o in parted], dim=1)
    total = found.sum(dim=(1, 2))
    shares = found[total > 0] / total[total > 0, None, None]
    return shares.double().mean(dim=0).numpy()


def corner(shares: Float[np.ndarray, "... cells cells"], of: float) -> Float[np.ndarray, "..."]:
    """What the leading share `of` of channels and of components holds together."""
    lead = round(of * shares.shape[-1])
    return np.asarray(shares[..., :lead, :lead].sum(axis=(-1, -2)))


def of_linears(linears: Mapping[str, nn.Linear], progress: Progress) -> dict[str, Components]:
    """The components of every linear."""
    found = {}
    with progress.task("singular values", len(linears)) as advance:
        for name, linear in linears.items():
            found[name] = Components.of(linear.weight)
            advance(name)
    return found


def chance_map(
    linears: Mapping[str, nn.Linear], tokens: int, cells: int, seed: int
) -> Float[np.ndarray, "cells cells"]:
    """The mean map of Gaussian inputs and weights of the linears' shapes: what nothing shows."""
    found = {}
    shapes = [(linear.out_features, linear.in_features) for linear in linears.values()]
    for d_out, d_in in dict.fromkeys(shapes):
        drawn = torch.Generator().manual_seed(seed)
        x = torch.randn(tokens, d_in, generator=drawn)
        parts = Components.of(torch.randn(d_out, d_in, generator=drawn))
        found[d_out, d_in] = contribution_map(x, parts, cells)
    return np.mean([found[shape] for shape in shapes], axis=0)


def lost(
    x: Float[Tensor, "tokens d_in"], parts: Components, setting: Setting, seed: int = 0
) -> Lost:
    """What (1 - s) d_out d_in numbers leave out, in channels alone and with r components beside.

    A token reads its c largest |x_j|; what is left of x goes through the leading r components,
    c and r those of `setting`, or r = 0 and c = (1 - s) d_in. As the map counts it:
    Σ c_ji² of what is left out, over Σ c_ji². In the output: ‖y - ŷ‖² / ‖y‖². Means over tokens.
    The first takes what is added for orthogonal, the second is the error that is made.
    """
    d_out, d_in = len(parts.left), len(parts.right)
    rank = setting.rank(d_out, d_in)
    dense = parts.sizes * (x @ parts.right)  # y in the basis of the u_i
    add = (parts.sizes * parts.right).square()
    found = []
    for keep, r in ((1 - setting.sparsity, 0), (setting.channels(d_out, d_in), rank)):
        rest = _without_largest(x, round(keep * d_in))
        by_map = (rest.square() @ add[:, r:]).sum(1) / (x.square() @ add).sum(1)
        error = parts.sizes * (rest @ parts.right)
        found += [by_map, _ratio(error[:, r:], dense)]
    drawn = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(len(parts.sizes), rank, generator=drawn)).Q
    random = _ratio(error - error @ basis @ basis.mT, dense)
    alone_map, alone, both_map, both = found
    means = [float(v.double().mean()) for v in (alone_map, both_map, alone, both, random)]
    return Lost(*means)


def _ratio(
    error: Float[Tensor, "tokens some"], whole: Float[Tensor, "tokens k"]
) -> Float[Tensor, " tokens"]:
    return error.square().sum(1) / whole.square().sum(1)


def _without_largest(x: Float[Tensor, "tokens d_in"], keep: int) -> Float[Tensor, "tokens d_in"]:
    largest = x.abs().topk(keep, dim=1).indices
    return x.scatter(1, largest, 0.0)
