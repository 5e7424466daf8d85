"""Every configuration of the kernel that is shipped, as the compiler is asked for it.

`python -m ctr_kernels.sparse_gemv.triton_cases '["cuda", 80, 32]' all` prints what each needs, one
JSON list; with names of formats in place of "all", the instructions of a row of each.
"""

import json
import sys
from collections.abc import Iterator
from itertools import product

import torch
from triton.backends.compiler import GPUTarget

from ctr_kernels.compiled import Case, needs
from ctr_kernels.sparse_gemv.rows import Rows
from ctr_kernels.sparse_gemv.triton_items import _rsparse
from ctr_kernels.sparse_gemv.triton_plan import WARPS, geometry

POINTERS = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16",
    torch.int8: "*i8", torch.uint8: "*u8",
}  # fmt: skip
FORMATS = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
    "int8": torch.int8, "int4": torch.uint8,
}  # fmt: skip
Way = tuple[str, int, int, bool]
"""Format, rows of the batch, rank, atomic."""

DIFFERENT: tuple[Way, ...] = (
    ("float32", 1, 96, False),
    ("bfloat16", 1, 96, False),
    ("float16", 4, 16, True),
    ("int8", 1, 96, False),
    ("int8", 2, 16, False),
    ("int8", 4, 96, False),
    ("int4", 1, 96, False),
)
"""What continuous integration compiles."""
ALL: tuple[Way, ...] = tuple(product(FORMATS, (1, 2, 4), (0, 16, 96, 256), (False, True)))


def case(way: Way, lanes: int, ahead: int | None = None) -> Case:
    """As `Bound` launches it at sizes that are multiples of 16; half-precision x and factors
    beside codes, codes with zeros, a bias. `ahead`: rows asked for at once, if not what we ship."""
    name, batch, rank, atomic = way
    values = torch.empty(1, 1, dtype=FORMATS[name])
    scales = torch.ones(1, 2 if name == "int4" else 1) if name.startswith("int") else None
    rows = Rows(values, 2 if name == "int4" else 1, scales, None, 1)
    other = values.dtype if scales is None else torch.float16
    shape = geometry(rows, other.itemsize, rank, batch, lanes)
    shape = shape._replace(U=ahead or shape.U)
    constants = shape._asdict() | {
        "CODES": name == "int4", "SCALED": name == "int8", "ZEROS": name == "int4",
        "LOW": rank > 0, "BIAS": True, "ATOMIC": atomic,
    }  # fmt: skip
    own = {"p_w": POINTERS[values.dtype], "p_state": "*i32"}
    own |= dict.fromkeys(("p_x", "p_y", "p_down", "p_up", "p_bias"), POINTERS[other])
    floats = {"p_t", "p_scale", "p_zero", "p_parts", "p_zparts", "p_z"}
    types = {
        x: own.get(x, "*fp32" if x in floats else "i32")
        for x in _rsparse.arg_names
        if x not in constants
    }
    sizes = {"d_in", "d_out", "width", "group", "rank", "stride_x", "stride_down", "stride_up"}
    walks = 1 + (rank > 0) * (3 if name == "int4" else 2)
    says = f"{name} batch {shape.B} rank {rank}{' atomic' * atomic}, loads {walks * shape.U}"
    aligned = frozenset({x for x in types if x.startswith("p_")} | sizes)
    return Case(says, _rsparse, types, constants, aligned, {"num_warps": WARPS})


def cases(ways: tuple[Way, ...] = DIFFERENT, lanes: int = 32) -> Iterator[Case]:
    """One a way; ways that are compiled alike (a batch beyond what a program serves) once."""
    yield from {made.name: made for made in (case(way, lanes) for way in ways)}.values()


def row_instructions(name: str, target: GPUTarget) -> float:
    """Instructions that a warp issues a row segment, read or not: what more rows at once add."""
    few, many = (
        needs(case((name, 1, 0, False), target.warp_size, ahead), target).instructions
        for ahead in (4, 8)
    )
    return (many - few) / 4


if __name__ == "__main__":
    to, names = GPUTarget(*json.loads(sys.argv[1])), sys.argv[2:]
    if names == ["all"]:
        report = [needs(each, to) for each in cases(ALL, to.warp_size)]
    else:
        report = {name: row_instructions(name, to) for name in names}
    sys.stdout.write(json.dumps(report))
