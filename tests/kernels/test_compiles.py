"""Triton kernels compile for GPUs that are not here, and keep their rows in registers.

The compiler is asked in a process of its own: under TRITON_INTERPRET, which these tests set,
there is nothing to compile.
"""

import json
import os
import subprocess
import sys

import pytest

COMPILE = """
import json, re, subprocess, sys, tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ctr_kernels.hard_threshold.triton import WIDEST, _select, geometry

backend, arch, warp = json.loads(sys.argv[1])
report = []
for d_in in (63, 576, 1536, 4096, 11008, WIDEST):
    for pointer in ("*fp32", "*bf16", "*fp16"):
        wide, warps = geometry(d_in)
        signature = dict(
            p_x=pointer, p_y=pointer, d_in="i32", keep="i32", stride_x="i32", N="constexpr"
        )
        aligned = (0, 1, 2, 4) if d_in % 16 == 0 else (0, 1)
        source = ASTSource(
            fn=_select,
            signature=signature,
            constexprs={(5,): wide},
            attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
        )
        kernel = triton.compile(
            source, target=GPUTarget(backend, arch, warp), options=dict(num_warps=warps)
        )
        if backend == "hip":
            # A scalar register spilled to a lane of a vector register never reaches memory.
            fields = ("vgpr_spill_count", "private_segment_fixed_size")
            text = kernel.asm["amdgcn"]
            spilled = [int(re.search(rf"[.]{f}:\\s*(\\d+)", text)[1]) for f in fields]
        else:
            tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
            with tempfile.NamedTemporaryFile(suffix=".cubin") as binary:
                binary.write(kernel.asm["cubin"])
                binary.flush()
                out = subprocess.run(
                    [tool, "-res-usage", binary.name], capture_output=True, text=True, check=True
                )
            usage = re.search(r"STACK:(\\d+) .*LOCAL:(\\d+)", out.stdout + out.stderr)
            spilled = [int(n) for n in usage.groups()]
        report.append((d_in, pointer, warps * warp, spilled))
print(json.dumps(report))
"""


@pytest.mark.parametrize("target", [("cuda", 80, 32), ("cuda", 90, 32), ("hip", "gfx942", 64)])
def test_compiles_without_spills(target, tmp_path):
    pytest.importorskip("triton")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    out = subprocess.run(
        [sys.executable, "-c", COMPILE, json.dumps(target)],
        capture_output=True,
        text=True,
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert out.returncode == 0, out.stderr
    report = json.loads(out.stdout)
    assert len(report) == 18
    for d_in, pointer, threads, spilled in report:
        assert not any(spilled), (d_in, pointer, spilled)
        assert threads <= 1024
