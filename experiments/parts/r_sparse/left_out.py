"""The biases that left-out inputs add: their matrix over tokens, and how many directions it has."""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bridge.decode.inputs import quantile
from mech.probes import spectra

COUNTS = ("stable rank", "effective rank", "components for 90%")


def rest(x: Float[Tensor, "tokens d_in"], sparsity: float) -> Float[Tensor, "tokens d_in"]:
    """x_j where |x_j| ≤ t, else 0: t the s-quantile of |x|, over tokens and channels."""
    return torch.where(x.abs() <= quantile(x.abs(), sparsity), x, 0)


def mixed(x: Float[Tensor, "tokens d_in"], seed: int) -> Float[Tensor, "tokens d_in"]:
    """Every channel's tokens in an order of its own: only what goes together is changed."""
    drawn = torch.Generator().manual_seed(seed)
    return x.gather(0, torch.rand(x.shape, generator=drawn).argsort(dim=0))


def narrow(weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "k d_in"]:
    """A k × d_in matrix, k = min(d_out, d_in), whose product with any x has the length of W x."""
    wide = weight.detach().float().cpu()
    return torch.linalg.qr(wide, mode="r").R if len(wide) > wide.shape[1] else wide


def spectrum(
    x: Float[Tensor, "tokens d_in"], weight: Float[Tensor, "k d_in"]
) -> Float[np.ndarray, " k"]:
    """The singular values of X Wᵀ, largest first, by the eigenvalues of its Gram matrix.

    Squared once: what is below 1e-4 of the largest (inputs in float32) is noise.
    """
    biases = (x @ weight.mT).double()
    values = torch.linalg.eigvalsh(biases.mT @ biases).flip(0).clamp_min(0).sqrt()
    return values.numpy()


def counts(values: Float[np.ndarray, " k"], d_out: int) -> Float[np.ndarray, "3"]:
    """`COUNTS` of a spectrum, as shares of d_out."""
    found = [measure(values) for measure in (spectra.stable_rank, spectra.effective_rank,
                                             spectra.energy_rank)]  # fmt: skip
    return np.array(found, dtype=float) / d_out


@cache
def random_counts(tokens: int, d_out: int, d_in: int, sparsity: float, seed: int) -> tuple:
    """`counts` for Gaussian inputs and a Gaussian weight of the same shapes."""
    drawn = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, d_in, generator=drawn)
    weight = narrow(torch.randn(d_out, d_in, generator=drawn))
    return tuple(counts(spectrum(rest(x, sparsity), weight), d_out))
