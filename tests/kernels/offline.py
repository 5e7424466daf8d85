"""Compile the Triton kernels for a GPU that is not here, and say what they need of it.

`python offline.py OP '["cuda", 80, 32]'` prints one JSON list of `Needs`. A process of its own:
under TRITON_INTERPRET, which the tests set, there is nothing to compile.
"""

import json
import sys
from collections.abc import Iterator

import torch
from triton.backends.compiler import GPUTarget

from ctr_kernels.compiled import Case, needs
from ctr_kernels.sparse_gemv.triton_cases import cases

DTYPES = {"*fp32": torch.float32, "*bf16": torch.bfloat16, "*fp16": torch.float16}


def hard_threshold() -> Iterator[Case]:
    """Rows of the models' widths, an odd one and the widest."""
    from ctr_kernels.hard_threshold.triton import WIDEST, _select, geometry

    for d_in in (63, 576, 1536, 4096, 11008, WIDEST):
        for pointer in DTYPES:
            wide, warps = geometry(d_in)
            signature = {"p_x": pointer, "p_y": pointer}
            signature |= dict.fromkeys(("d_in", "keep", "stride_x"), "i32")
            strides = {"d_in", "stride_x"} if d_in % 16 == 0 else set()
            yield Case(
                f"_select {d_in} {pointer}",
                _select,
                signature,
                {"N": wide},
                frozenset({"p_x", "p_y"} | strides),
                {"num_warps": warps},
            )


def sink_mass() -> Iterator[Case]:
    """Heads of 64 and 128, plain; wide and padded ones with a cap and a learned sink."""
    from ctr_kernels.sink_mass.triton import _columns, _rows, geometry

    plain = [(width, width, pointer, False) for width in (64, 128) for pointer in DTYPES]
    full = [(256, 256, "*fp32", True), (192, 128, "*bf16", True)]
    for width, d_head, pointer, more in plain + full:
        wide = 256 if width == 192 else width
        m, n, warps, stages = geometry(DTYPES[pointer], wide)
        types = {"p_q": pointer, "p_k": pointer, "p_v": pointer}
        types |= dict.fromkeys(("p_low", "p_high", "p_first", "p_last"), "*i32")
        types |= dict.fromkeys(("p_sink", "p_lse", "p_z", "p_received"), "*fp32")
        aligned = {*types, *(f"stride_{x}{y}" for x in "qkv" for y in ("b", "h", ""))}
        types |= dict.fromkeys(aligned - {*types} | {"queries", "keys", "heads"}, "i32")
        types |= dict.fromkeys(("scaling", "softcap"), "fp32")
        common = {"GROUPS": 3, "D": width, "WIDE": wide, "M": m, "N": n, "CAPPED": more}
        values = {"DV": d_head, "WIDE_V": d_head, "VALUED": True, "SINK": more}
        for kernel, constants in ((_rows, common | values), (_columns, common)):
            yield Case(
                f"{kernel.__name__} {width}/{d_head} {pointer}{' sink cap' * more}",
                kernel,
                {x: types[x] for x in kernel.arg_names if x not in constants},
                constants,
                frozenset(aligned),
                {"num_warps": warps, "num_stages": stages},
            )


if __name__ == "__main__":
    target = GPUTarget(*json.loads(sys.argv[2]))
    of = {
        "hard_threshold": hard_threshold,
        "sink_mass": sink_mass,
        "sparse_gemv": lambda: cases(lanes=target.warp_size),
    }
    sys.stdout.write(json.dumps([needs(case, target) for case in of[sys.argv[1]]()]))
