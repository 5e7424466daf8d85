"""From a weight to rows of codes: int8 with a scale an output, four bits with one a group."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ctr_kernels.sparse_gemv.rows import Rows

BYTE, NIBBLE = 127, 15


def int8_rows(weight: Float[Tensor, "d_out d_in"]) -> Rows:
    """s_o = max_j |W_oj| / 127, values_jo = ⌊W_oj / s_o⌉: |W_oj - s_o values_jo| ≤ s_o / 2.

    An output of zeros has s = 1. Raises ValueError where a weight is not finite.
    """
    _check(weight)
    wide = weight.detach().float()
    scales = wide.abs().amax(1) / BYTE
    scales = torch.where(scales > 0, scales, 1)
    codes = torch.round(wide / scales[:, None]).clamp_(-BYTE, BYTE).to(torch.int8)
    return Rows(codes.mT.contiguous(), len(weight), scales[None])


def int4_rows(weight: Float[Tensor, "d_out d_in"], group: int = 128) -> Rows:
    """s_go = (max w - min w) / 15, z_go = ⌊-min w / s⌉, c = clip(⌊w / s⌉ + z, 0, 15).

    w: the weights of output o and of the input channels of group g, and 0, so 0 is always among
    the values. A group of zeros has s = 1. Raises ValueError where a weight is not finite.
    """
    _check(weight)
    d_out, d_in = weight.shape
    groups = -(-d_in // group)
    # Zeros behind the last channel change neither range, which has 0 in it.
    wide = torch.nn.functional.pad(weight.detach().float(), (0, groups * group - d_in))
    split = wide.view(d_out, groups, group)
    low, high = split.amin(2).clamp_max(0), split.amax(2).clamp_min(0)
    scales = (high - low) / NIBBLE
    scales = torch.where(scales > 0, scales, 1)
    zeros = torch.round(-low / scales).clamp_(0, NIBBLE)
    codes = torch.round(split / scales[..., None]).add_(zeros[..., None]).clamp_(0, NIBBLE)
    return rows_of(codes.view(d_out, -1)[:, :d_in].to(torch.uint8), scales, zeros, group)


def rows_of(
    codes: UInt8[Tensor, "d_out d_in"],
    scales: Float[Tensor, "d_out groups"],
    zeros: Float[Tensor, "d_out groups"] | UInt8[Tensor, "d_out groups"] | None,
    group: int,
) -> Rows:
    """W_oj = s_og (c_oj - z_og), g = ⌊j / group⌋, by input channel; the same codes, no rounding.

    Codes are below 16; without `zeros` z = 8 everywhere. Raises ValueError where a code is not
    below 16, or a scale is not a float32.
    """
    if codes.numel() and int(codes.max()) > NIBBLE:
        raise ValueError(f"a code of {int(codes.max())}: four bits hold 0 to {NIBBLE}")
    wide = scales.float()
    if not torch.equal(wide.to(scales.dtype), scales):
        raise ValueError(f"scales of {scales.dtype} that float32 does not hold")
    half = -(-len(codes) // 2)
    by_channel = torch.nn.functional.pad(codes.mT, (0, 2 * half - len(codes)))
    return Rows(
        (by_channel[:, :half] | by_channel[:, half:] << 4).contiguous(),
        len(codes),
        wide.mT.contiguous(),
        None if zeros is None else zeros.float().mT.contiguous(),
        group,
    )


def _check(weight: Float[Tensor, "d_out d_in"]) -> None:
    if not torch.isfinite(weight).all():
        raise ValueError("a weight that is not finite has no code: mend the weight first")
