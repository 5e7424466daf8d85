"""Triton kernels compile for GPUs that are not here, and keep their numbers in registers.

`offline.py` asks the compiler, in a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Bytes of shared memory that one program may have (CUDA C++ programming guide, table of compute
# capabilities; CDNA 3 instruction set, section on the local data share).
TARGETS = {
    ("cuda", 80, 32): 163 * 1024,
    ("cuda", 90, 32): 227 * 1024,
    ("hip", "gfx942", 64): 64 * 1024,
}


def check_loads(backend: str, name: str, streamed: dict[str, int]) -> None:
    """Every load of the matrix and of the factors brings a thread 16 bytes.

    There are as many as rows asked for at once, for each of W, `down`, `up` (twice for four bits).
    """
    of_matrices = int(name.rsplit(" ", 1)[-1])
    assert streamed["128"] >= of_matrices, (name, streamed)
    if backend == "cuda":
        assert streamed == {"128": of_matrices}, (name, streamed)


@pytest.mark.parametrize(
    ("op", "cases"), [("hard_threshold", 18), ("sink_mass", 16), ("sparse_gemv", 7)]
)
@pytest.mark.parametrize("target", TARGETS)
def test_compiles_without_spills(op, cases, target, tmp_path, measured):
    pytest.importorskip("triton")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    out = subprocess.run(
        [sys.executable, Path(__file__).with_name("offline.py"), op, json.dumps(target)],
        capture_output=True,
        text=True,
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert out.returncode == 0, out.stderr
    report = json.loads(out.stdout)
    assert len(report) == cases
    for name, threads, _, spilled, shared, streamed, _ in report:
        assert not spilled, (name, spilled)
        assert threads <= 1024
        assert shared <= TARGETS[target], (name, shared)
        if op == "sparse_gemv":
            check_loads(target[0], name, streamed)
    widest = max(report, key=lambda row: row[2])
    measured(
        f"{op} for {target[1]}, {cases} compilations, most registers a thread",
        f"{widest[2]} ({widest[0]}), shared memory up to {max(row[4] for row in report)} bytes",
        f"no spills, at most {TARGETS[target]} bytes",
    )
