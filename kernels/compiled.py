"""What a Triton kernel needs of a GPU that is not here: compiled for it, and counted.

The compiler needs no driver. It compiles nothing under TRITON_INTERPRET.
"""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# Bits that a load may bring a thread, by the ending of its name. AMD's instructions say how many
# 32-bit words; NVIDIA's say nothing where it is one.
_WIDTHS = {"U8": 8, "S8": 8, "U16": 16, "64": 64, "128": 128}
_WORDS = {"dwordx2": 64, "dwordx3": 96, "dwordx4": 128}


class Case(NamedTuple):
    """A kernel as it is launched; `aligned` arguments are multiples of 16."""

    name: str
    kernel: Any
    signature: dict[str, str]
    constants: Mapping[str, object]
    aligned: frozenset[str]
    options: dict[str, int]


class Needs(NamedTuple):
    """A thread's registers, what of them went to memory, a program's shared memory, in bytes.

    streamed: bits a thread of every load of data that is read once (evicted first), and how many
    such loads; on AMD, whose code does not say so, of all loads of more than 32 bits.
    instructions: of the whole kernel.
    """

    name: str
    threads: int
    registers: int
    spilled: int
    shared: int
    streamed: dict[int, int]
    instructions: int


def needs(case: Case, target: GPUTarget) -> Needs:
    """Compile the case for the target, and read its machine code."""
    place = {name: i for i, name in enumerate(case.kernel.arg_names)}
    source = ASTSource(
        fn=case.kernel,
        signature=case.signature | dict.fromkeys(case.constants, "constexpr"),
        constexprs={(place[name],): value for name, value in case.constants.items()},
        attrs={(place[name],): [["tt.divisibility", 16]] for name in case.aligned if name in place},
    )
    compiled = triton.compile(source, target=target, options=case.options)
    read = _amd if target.backend == "hip" else _nvidia
    registers, spilled, loads, instructions = read(compiled)
    threads = case.options["num_warps"] * target.warp_size
    shared = compiled.metadata.shared
    return Needs(case.name, threads, registers, spilled, shared, dict(loads), instructions)


def _amd(compiled: Any) -> tuple[int, int, Counter[int], int]:
    # A scalar register spilled to a lane of a vector register never reaches memory.
    text = compiled.asm["amdgcn"]
    fields = ("vgpr_count", "vgpr_spill_count", "private_segment_fixed_size")
    registers, *spilled = (int(re.findall(rf"[.]{f}:\s*(\d+)", text)[0]) for f in fields)
    loads = re.findall(r"(?:global|buffer)_load_(dwordx\d)", text)
    instructions = len(
        re.findall(r"^\s+[svb]_\w+|^\s+(?:global|ds|buffer)_\w+", text, re.MULTILINE)
    )
    return registers, sum(spilled), Counter(_WORDS[kind] for kind in loads), instructions


def _nvidia(compiled: Any) -> tuple[int, int, Counter[int], int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as binary:
        binary.write(compiled.asm["cubin"])
        binary.flush()
        usage, code = (_cuobjdump(option, binary.name) for option in ("-res-usage", "-sass"))
    ((registers, *spilled),) = re.findall(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage)
    loads = re.findall(r"\bLDG[.\w]*[.]EF([.\w]*)", code)
    wide = Counter(_WIDTHS.get(kind.rsplit(".", 1)[-1], 32) for kind in loads)
    instructions = len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s", code, re.MULTILINE))
    return int(registers), sum(map(int, spilled)), wide, instructions


def _cuobjdump(option: str, path: str) -> str:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    out = subprocess.run([tool, option, path], capture_output=True, text=True, check=True)
    return out.stdout + out.stderr
