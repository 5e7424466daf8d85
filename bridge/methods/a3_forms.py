"""The closed forms of A3 (arXiv:2505.12942), on the second moments of a head's own outputs.

The paper takes square roots of E[x xᵀ] over the model's width. Scores and writes see x only
through q, k and z, so moments of those, d_head × d_head, hold all of it, biases included: with
A = E[q qᵀ] and B = E[k kᵀ], ‖R^½ (W_q W_kᵀ - W̃_q W̃_kᵀ) R^½‖ = ‖A^½ (I - L Mᵀ) B^½‖.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech.errors import BadInput

RELATIVE = 1e-12
"""Directions whose second moment is below this share of the largest count as not there."""
ROUNDING = 1e-14
"""S² is known to a few 1e-16 of its largest: directions below this share are noise."""

Unit = tuple[int, ...]


class Maps(NamedTuple):
    """aᵀ b ≈ (leftᵀ a)ᵀ (rightᵀ b); `reached` directions carry something, the others are zero."""

    left: Float[Tensor, "*heads d_head rank"]
    right: Float[Tensor, "*heads d_head rank"]
    reached: Int[Tensor, "*heads"]


def joint(
    first: Float[Tensor, "*heads d_head d_head"],
    second: Float[Tensor, "*heads d_head d_head"],
    rank: int,
) -> Maps:
    """The L, M of rank r that minimise ‖A^½ (I - L Mᵀ) B^½‖_F; A, B ⪰ 0 are `first`, `second`.

    That is E (aᵀ b - aᵀ L Mᵀ b)² of independent a, b with these second moments: A3's QK with
    a = q, b = k, and its OV with a = z and B = W_o W_oᵀ. With TᵀT = B and T A Tᵀ = V S² Vᵀ:
    L = Tᵀ V_r, M = T⁺ V_r, and the error is √Σ_{j>r} S_j² (Eckart and Young). Several heads that
    share b add their A. The factors are balanced, E(Lᵀa)_j² = E(Mᵀb)_j² = S_j, for the sake of
    half precision. Float64 throughout; a singular B has its null space left out, where b is 0.
    """
    values, vectors = torch.linalg.eigh(second.double())
    there = values > RELATIVE * values[..., -1:]
    root = values.clamp_min(0).sqrt() * there
    inverse = torch.where(there, 1 / values.clamp_min(1e-300).sqrt(), 0)
    T = root[..., None] * vectors.mT
    energy, V = torch.linalg.eigh(T @ first.double() @ T.mT)
    energy, V = energy.flip(-1)[..., :rank], V.flip(-1)[..., :rank]
    carried = energy > ROUNDING * energy[..., :1]
    half = torch.where(carried, energy.clamp_min(0) ** 0.25, 0)
    left = T.mT @ V * torch.where(carried, 1 / half.clamp_min(1e-150), 0)[..., None, :]
    right = (vectors * inverse[..., None, :]) @ V * half[..., None, :]
    return Maps(left, right, carried.sum(-1))


def units(
    d_head: int,
    rotary: Literal["half", "adjacent"] | None,
    rotated: int | None = None,
) -> list[Unit]:
    """Coordinates of a head that only stay or go together: rotary pairs, and the others singly.

    The first `rotated` coordinates (all of them unless said) are rotated: in Hugging Face's
    order as pairs (i, i + rotated/2), "half"; in the paper's as (2i, 2i+1), "adjacent".
    """
    rotated = 0 if rotary is None else d_head if rotated is None else rotated
    if rotated % 2 or not 0 <= rotated <= d_head:
        raise BadInput(f"{rotated} of {d_head} coordinates are rotated: they make no pairs")
    middle = rotated // 2
    if rotary == "half":
        pairs = [(i, i + middle) for i in range(middle)]
    else:
        pairs = [(2 * i, 2 * i + 1) for i in range(middle)]
    return [*pairs, *((i,) for i in range(rotated, d_head))]


def unit_scores(
    query: Float[Tensor, "*heads d_head"],
    key: Float[Tensor, "*heads d_head"],
    of: Sequence[Unit],
) -> Float[Tensor, "*heads units"]:
    """λ = Σ_{i in unit} E[q_i²] E[k_i²], A3's ‖L_:,i‖² ‖R_i,:‖² summed over a rotary pair.

    `query` is summed over the query heads that share the key head.
    """
    powers = query.double() * key.double()
    return torch.stack([powers[..., list(unit)].sum(-1) for unit in of], dim=-1)


def best_units(
    scores: Float[Tensor, " units"], of: Sequence[Unit], keep: int
) -> Int[Tensor, " kept"]:
    """At most `keep` coordinates, in order: units of the largest λ a coordinate, while they fit."""
    sizes = scores.new_tensor([len(unit) for unit in of])
    order = torch.sort(scores / sizes, descending=True, stable=True).indices
    chosen: list[int] = []
    for index in order.tolist():
        if len(chosen) + len(of[index]) <= keep:
            chosen += of[index]
    return torch.tensor(sorted(chosen), dtype=torch.int64, device=scores.device)


def neuron_scores(
    moment: Float[Tensor, " d_mlp"], down: Float[Tensor, "d_model d_mlp"]
) -> Float[Tensor, " d_mlp"]:
    """λ_i = E[h_i²] ‖w_i‖², h what `down` reads and w_i its column i: only (R_d)_ii is needed."""
    return moment.double() * down.double().square().sum(0)


def best_neurons(scores: Float[Tensor, " d_mlp"], keep: int) -> Int[Tensor, " kept"]:
    """The `keep` largest, in order of index; of equal ones the lower index stays."""
    return torch.sort(scores, descending=True, stable=True).indices[:keep].sort().values
