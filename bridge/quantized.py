"""A matrix of small integer codes with one scale a group of columns: what a quantiser leaves."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor, nn

from bridge import serial
from bridge.bitplanes import pack, unpack
from bridge.operators import LinearOperator, Operator, Weight
from mech.errors import BadInput

Scales = Float[Tensor, "d_out groups"] | Int8[Tensor, "d_out groups"]


class Quantized(LinearOperator):
    """Ŵ_ij = s_ig (c_ij - z_ig), c_ij < 2^bits packed, g = ⌊j / group⌋ the group of column j.

    s are numbers of the weight's format, or int8 exponents e with s = 2^e. z are packed like the
    codes; without them z = 2^(bits-1) everywhere, which makes the codes signed. The last group of
    a row is shorter where `group` does not divide d_in. Simulated: the matrix is unpacked for
    every product. `parameters_kept` counts every code, since none is removed; what is saved is
    in `bits`: codes, scales and zeros as they are packed.

    Raises BadInput where a code or zero does not fit, or the number of groups is another.
    """

    planes: Tensor
    scales: Tensor
    zero_planes: Tensor | None
    like: Tensor

    def __init__(
        self,
        codes: UInt8[Tensor, "d_out d_in"],
        scales: Scales,
        zeros: UInt8[Tensor, "d_out groups"] | None,
        *,
        bits: int,
        group: int,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if not 1 <= bits <= 8:
            raise BadInput(f"bits {bits}: a code has 1 to 8")
        d_out, d_in = codes.shape
        if group < 1 or scales.shape != (d_out, -(-d_in // group)):
            raise BadInput(
                f"{tuple(scales.shape)} scales for a {d_out} x {d_in} matrix in groups of {group}"
            )
        self.width, self.group, self.size = bits, group, (d_out, d_in)
        # Holds no number: it says the format of the result, and follows `.to(dtype)`. It comes
        # first, since an operator's first buffer tells what is put in its place which format.
        self.register_buffer("like", torch.zeros(0, dtype=dtype or scales.dtype), persistent=False)
        self.register_buffer("planes", pack(codes, bits))
        self.register_buffer("scales", scales.detach().clone())
        self.register_buffer("zero_planes", None if zeros is None else pack(zeros, bits))

    @property
    def shape(self) -> tuple[int, int]:
        return self.size

    def codes(self) -> UInt8[Tensor, "d_out d_in"]:
        """c, as they went in."""
        return unpack(self.planes, self.size)

    def zeros(self) -> UInt8[Tensor, "d_out groups"] | None:
        """z, as they went in."""
        if self.zero_planes is None:
            return None
        return unpack(self.zero_planes, tuple(self.scales.shape))

    def matrix(self) -> Weight:
        scales = self.scales
        if scales.dtype == torch.int8:
            scales = torch.exp2(scales.to(self.like))
        zeros = self.zeros()
        middle = 1 << (self.width - 1) if zeros is None else self._wide(zeros).to(self.like)
        # Integers below 256 are exact in every format: one rounding, that of the product.
        return (self.codes().to(self.like) - middle) * self._wide(scales)

    def product(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return nn.functional.linear(x, self.matrix())

    def parameters_kept(self) -> int:
        return self.size[0] * self.size[1]

    def bits(self) -> int:
        zeros = 0 if self.zero_planes is None else 8 * self.zero_planes.numel()
        scales = 8 * self.scales.element_size() * self.scales.numel()
        return 8 * self.planes.numel() + scales + zeros

    def flops(self) -> int:
        return 2 * self.size[0] * self.size[1]

    def _wide(self, grouped: Tensor) -> Tensor:
        """One entry a column of one entry a group."""
        return grouped.repeat_interleave(self.group, 1)[:, : self.size[1]]


def _attributes(operator: Quantized) -> serial.Spec:
    return {
        "bits": operator.width,
        "group": operator.group,
        "shape": list(operator.shape),
        "dtype": str(operator.like.dtype).removeprefix("torch."),
    }


def _stored(operator: Quantized) -> dict[str, Tensor]:
    found = {"planes": operator.planes, "scales": operator.scales}
    if operator.zero_planes is not None:
        found["zero_planes"] = operator.zero_planes
    return found


def _built(attributes: serial.Spec, tensors: serial.Tensors, _: Sequence[Any]) -> Operator:
    bits, scales, shape = attributes["bits"], tensors["scales"], tuple(attributes["shape"])
    zeros = tensors.get("zero_planes")
    dtype = getattr(torch, attributes["dtype"])
    if len(tensors["planes"]) != bits or (zeros is not None and len(zeros) != bits):
        raise BadInput(f"a stored quantized operator: its planes are not those of {bits} bits")
    return Quantized(
        unpack(tensors["planes"], shape),
        scales,
        None if zeros is None else unpack(zeros, tuple(scales.shape)),
        bits=bits,
        group=attributes["group"],
        dtype=dtype,
    )


serial.register("quantized", serial.Kind(Quantized, _stored, _built, attributes=_attributes))
