"""What a quantiser left, by input channel: the same codes, read by the sparse kernels."""

import torch
from torch import nn

from bridge.operators import Affine
from bridge.quantized import Quantized
from bridge.sites import operators
from ctr_kernels.sparse_gemv.pack import rows_of
from ctr_kernels.sparse_gemv.rows import Rows
from mech.errors import BadInput


def code_rows(quantized: Quantized) -> Rows:
    """W_oj = s_og (c_oj - z_og): codes, scales and zeros of the operator, none of them rounded.

    The operator rounds each entry to the format of its model; rows compute in float32 and round
    sums only. Raises BadInput for codes of more than four bits.
    """
    if quantized.width > 4:
        raise BadInput(f"codes of {quantized.width} bits: rows hold four (GPTQ or RTN with bits=4)")
    scales = quantized.scales
    if scales.dtype == torch.int8:
        scales = torch.exp2(scales.float())
    zeros = quantized.zeros()
    if zeros is None and quantized.width != 4:
        zeros = torch.full_like(scales, 1 << (quantized.width - 1), dtype=torch.uint8)
    return rows_of(quantized.codes(), scales, zeros, quantized.group)


def coded(model: nn.Module) -> dict[str, Rows]:
    """Rows of every quantised linear of a compressed model, by name, for `sparsified(rows=…)`.

    Take them before `bridge.fold` makes the model dense again: prompts go through the folded
    weights, steps of decoding through these. Raises BadInput where nothing is quantised.
    """
    terms = {n: op.term if isinstance(op, Affine) else op for n, op in operators(model).items()}
    rows = {name: code_rows(term) for name, term in terms.items() if isinstance(term, Quantized)}
    if not rows:
        raise BadInput("no linear of the model is quantised: compress it with GPTQ or rounding")
    return rows
