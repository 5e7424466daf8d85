"""Wᵀ stored by input channel: what a channel is not read for costs nothing."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Rows:
    """W_oj, one contiguous row a channel j, in one of three formats that `values` tells apart.

    floats [d_in, d_out]: W_oj = values_jo.
    int8 [d_in, d_out]: W_oj = scale_o values_jo, one scale an output, `scales` [1, d_out].
    uint8 [d_in, ⌈d_out/2⌉]: four-bit codes c_jo, W_oj = s_go (c_jo - z_go), g = ⌊j / group⌋;
    `scales` and `zeros` [groups, d_out] (without `zeros` z = 8 everywhere). Output o is in the low
    half of byte o for o < ⌈d_out/2⌉, and in the high half of byte o - ⌈d_out/2⌉ for the others.

    Scales and zeros are float32. Raises ValueError where shapes or dtypes do not go together.
    """

    values: Float[Tensor, "d_in d_out"] | Int8[Tensor, "d_in d_out"] | UInt8[Tensor, "d_in bytes"]
    d_out: int
    scales: Float[Tensor, "groups d_out"] | None = None
    zeros: Float[Tensor, "groups d_out"] | None = None
    group: int = 0

    def __post_init__(self):
        kind, (d_in, width) = self.values.dtype, self.values.shape
        if kind not in (*FLOATS, torch.float64, torch.int8, torch.uint8):
            raise ValueError(f"rows of {kind}: floats, int8, or four-bit codes in uint8")
        if width != (-(-self.d_out // 2) if kind == torch.uint8 else self.d_out):
            raise ValueError(f"rows of {width} {kind} for {self.d_out} outputs")
        if not self.values.is_contiguous():
            raise ValueError(
                "rows: one input channel has to be contiguous (weight.mT.contiguous())"
            )
        groups = {torch.int8: 1, torch.uint8: -(-d_in // max(self.group, 1))}.get(kind)
        if kind == torch.uint8 and self.group < 1:
            raise ValueError(f"group {self.group}: the input channels that share a scale")
        for name, grid in (("scales", self.scales), ("zeros", self.zeros)):
            needed = groups is not None and (name == "scales" or grid is not None)
            if grid is None and not needed:
                continue
            if grid is None or groups is None or (kind == torch.int8 and name == "zeros"):
                raise ValueError(f"rows of {kind}: {name} {'missing' if needed else 'not used'}")
            if grid.shape != (groups, self.d_out) or grid.dtype != torch.float32:
                raise ValueError(f"{name}: float32 {groups} x {self.d_out}")

    @property
    def d_in(self) -> int:
        """Rows."""
        return self.values.shape[0]

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.values.device

    @property
    def row_bytes(self) -> int:
        """What reading one channel costs."""
        return self.values.shape[1] * self.values.element_size()

    def matrix(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "d_in d_out"]:
        """Wᵀ, every entry computed in `dtype`."""
        if self.values.is_floating_point():
            return self.values.to(dtype)
        assert self.scales is not None
        if self.values.dtype == torch.int8:
            return self.values.to(dtype) * self.scales.to(dtype)
        codes = torch.cat([self.values & 15, self.values >> 4], 1)[:, : self.d_out].to(dtype)
        scales = self._wide(self.scales).to(dtype)
        zeros = 8 if self.zeros is None else self._wide(self.zeros).to(dtype)
        return (codes - zeros) * scales

    def _wide(self, grid: Tensor) -> Tensor:
        """One row a channel of one row a group."""
        return grid.repeat_interleave(self.group, 0)[: self.d_in]
