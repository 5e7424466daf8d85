"""TEAL's thresholds as published (Liu et al. 2024, arXiv:2408.14690): of a signed histogram."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from bridge.decode.inputs import Inputs
from bridge.decode.recipe import Recipe
from mech.errors import BadInput

BINS = 10_000


def signed_threshold(x: Float[Tensor, "*any"], sparsity: float, bins: int = BINS) -> float:
    """t = F⁻¹(1/2 + s/2), F the distribution of the signed entries of x, from a histogram.

    `bins` bins: bins - 2 equal ones from the 1% to the 99% quantile of x, one on either side up
    to the extremes; F at a bin's centre is the share up to that bin's end, linear in between and
    constant beyond (the release). It leaves out the share s of the entries only where x is
    symmetric about 0: the s-quantile of |x| (`Inputs.quantile`) needs no such assumption. A
    negative t leaves out nothing.

    Raises BadInput where s is outside [0, 1], where x is empty or not finite, and for fewer than
    three bins.
    """
    if not 0 <= sparsity <= 1:
        raise BadInput(f"sparsity {sparsity}: a share, from 0 to 1")
    if bins < 3:
        raise BadInput(f"{bins} bins: at least three")
    values = x.detach().flatten().double()
    if not len(values) or not bool(values.isfinite().all()):
        raise BadInput("no finite inputs to take a threshold of: calibrate on more text")
    values = values.sort().values
    low, high = (values[round(q * (len(values) - 1))] for q in (0.01, 0.99))
    inner = torch.linspace(float(low), float(high), bins - 1, dtype=torch.float64)
    edges = torch.cat([values[:1], inner, values[-1:]])
    # An entry on an edge belongs to the bin below it; the outermost belong to the outer bins.
    upto = torch.searchsorted(values, edges[1:], right=True).double() / len(values)
    return _interpolated(0.5 + sparsity / 2, upto, (edges[1:] + edges[:-1]) / 2)


def as_published(recipe: Recipe, inputs: Inputs, bins: int = BINS) -> Recipe:
    """The recipe with `signed_threshold` of each linear's inputs in place of its thresholds.

    For plans of channels by magnitude alone, as TEAL's are. How much is read then is what the
    histogram makes of it: count it. Raises BadInput where a setting is another.
    """
    found: dict[tuple[int, float], float] = {}
    thresholds = {}
    for name, setting in recipe.plan.items():
        if setting.alpha < 1 or setting.rule != "magnitude":
            raise BadInput(f"{name}: TEAL's histogram is of a plan of channels by magnitude alone")
        rows = inputs.rows(name)
        # Linears that read one tensor share one sample, and so one threshold.
        key = (id(rows), setting.sparsity)
        if key not in found:
            found[key] = signed_threshold(rows, setting.sparsity, bins)
        thresholds[name] = torch.full((rows.shape[1],), found[key])
    return replace(recipe, thresholds=thresholds)


def _interpolated(
    share: float, upto: Float[Tensor, " bins"], centres: Float[Tensor, " bins"]
) -> float:
    """Where F reaches `share`: between the two centres about it."""
    after = int(torch.searchsorted(upto, torch.tensor(share, dtype=torch.float64)))
    if after == 0:
        return float(centres[0])
    if after == len(upto):
        return float(centres[-1])
    part = (share - upto[after - 1]) / (upto[after] - upto[after - 1])
    return float(centres[after - 1] + part * (centres[after] - centres[after - 1]))
