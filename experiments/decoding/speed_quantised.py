"""Dense decoding with torch's own weight-only kernels, in the same loop."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bridge.decode.fast_linear import Bound, bound, written

Weight = Float[Tensor, "d_out d_in"]
GROUPS = (128, 64, 32)
"""Consecutive inputs that share a scale: the largest that divides d_in."""


def bind_int8(module: nn.Module, x: Tensor) -> Bound:
    """W_oj = s_o c_oj, |c| <= 127, by `_weight_int8pack_mm`."""
    if not isinstance(module, nn.Linear) or module.bias is not None:
        return bound(module, x)
    weight = module.weight.detach().float()
    scales = weight.abs().amax(1).clamp_min(1e-12) / 127
    codes = (weight / scales[:, None]).round().to(torch.int8)
    kept = scales.to(x.dtype)
    return written(lambda x: torch.ops.aten._weight_int8pack_mm(x, codes, kept), x)


def bind_int4(module: nn.Module, x: Tensor) -> Bound:
    """W_oj = (c_oj - 8) s_og + z_og in groups of inputs, by `_weight_int4pack_mm_for_cpu`."""
    if not isinstance(module, nn.Linear) or module.bias is not None:
        return bound(module, x)
    weight = module.weight.detach().float()
    d_out, d_in = weight.shape
    group = next((g for g in GROUPS if d_in % g == 0), 0)
    if not group or d_out % 16:
        return bound(module, x)
    parts = weight.view(d_out, -1, group)
    low, high = parts.amin(2), parts.amax(2)
    scales = (high - low).clamp_min(1e-9) / 15
    codes = ((parts - low[..., None]) / scales[..., None]).round().to(torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.view(d_out, d_in), 1)
    grid = torch.stack([scales, low + 8 * scales], -1).transpose(0, 1).contiguous().to(x.dtype)
    return written(lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, group, grid), x)
