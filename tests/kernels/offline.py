"""Compile the Triton kernels for a GPU that is not here, and say what they need of it.

`python offline.py OP '["cuda", 80, 32]'` prints one JSON list of rows: the kernel and its case,
threads, registers a thread, bytes spilled, bytes of shared memory. A process of its own: under
TRITON_INTERPRET, which the tests set, there is nothing to compile.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

DTYPES = {"*fp32": torch.float32, "*bf16": torch.bfloat16, "*fp16": torch.float16}


class Case(NamedTuple):
    """A kernel as it is launched; `aligned` arguments are multiples of 16."""

    name: str
    kernel: Any
    signature: dict[str, str]
    constants: Mapping[str, object]
    aligned: frozenset[str]
    options: dict[str, int]


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


def needs(case: Case, target: GPUTarget) -> tuple[str, int, int, int, int]:
    """(case, threads, registers a thread, bytes spilled, bytes of shared memory)."""
    place = {name: i for i, name in enumerate(case.kernel.arg_names)}
    source = ASTSource(
        fn=case.kernel,
        signature=case.signature | dict.fromkeys(case.constants, "constexpr"),
        constexprs={(place[name],): value for name, value in case.constants.items()},
        attrs={(place[name],): [["tt.divisibility", 16]] for name in case.aligned if name in place},
    )
    compiled = triton.compile(source, target=target, options=case.options)
    read = _amd if target.backend == "hip" else _nvidia
    registers, spilled = read(compiled)
    threads = case.options["num_warps"] * target.warp_size
    return case.name, threads, registers, spilled, compiled.metadata.shared


def _amd(compiled: Any) -> tuple[int, int]:
    # A scalar register spilled to a lane of a vector register never reaches memory.
    text = compiled.asm["amdgcn"]
    fields = ("vgpr_count", "vgpr_spill_count", "private_segment_fixed_size")
    registers, *spilled = (int(re.findall(rf"[.]{f}:\s*(\d+)", text)[0]) for f in fields)
    return registers, sum(spilled)


def _nvidia(compiled: Any) -> tuple[int, int]:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as binary:
        binary.write(compiled.asm["cubin"])
        binary.flush()
        out = subprocess.run(
            [tool, "-res-usage", binary.name], capture_output=True, text=True, check=True
        )
    (usage,) = re.findall(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", out.stdout + out.stderr)
    registers, *spilled = (int(n) for n in usage)
    return registers, sum(spilled)


if __name__ == "__main__":
    cases = {"hard_threshold": hard_threshold, "sink_mass": sink_mass}[sys.argv[1]]
    report = [needs(case, GPUTarget(*json.loads(sys.argv[2]))) for case in cases()]
    sys.stdout.write(json.dumps(report))
