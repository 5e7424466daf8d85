"""Weights by input channel, in place: W keeps its shape and values, Wᵀ becomes contiguous."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ctr_kernels.sparse_gemv.rows import Rows


@contextmanager
def by_channel(linears: Mapping[str, nn.Linear]) -> Iterator[tuple[dict[str, Rows], int]]:
    """Rows of every weight that share its memory; back in row-major order after.

    A weight that lies by input channel already (GPT-2's) stays where it is. Dense products go on
    through the transposed view. At most one matrix is there twice at a time. Gives also the bytes
    that are there twice all the while: of weights whose first memory others still hold.
    """
    moved: list[Tensor] = []
    rows, twice = {}, 0
    try:
        for name, linear in linears.items():
            weight = linear.weight
            if not weight.mT.is_contiguous():
                twice += weight.nbytes if _borrowed(weight) else 0
                moved.append(weight)
                _put(weight, by_channel=True)
            rows[name] = Rows(weight.detach().mT, linear.out_features)
        yield rows, twice
    finally:
        for weight in moved:
            _put(weight, by_channel=False)


def _borrowed(weight: Tensor) -> bool:
    """Whether the weight is a piece of something larger (a stack of experts)."""
    return weight.untyped_storage().nbytes() > weight.nbytes


def _put(parameter: Tensor, *, by_channel: bool) -> None:
    # Memory that is made in inference mode could never be trained again.
    with torch.inference_mode(False), torch.no_grad():
        weight = parameter.detach()
        parameter.data = weight.mT.contiguous().mT if by_channel else weight.contiguous()
