"""The dispatcher: which implementation runs, and who falls back."""

import subprocess
import sys

import pytest
import torch

from ctr_kernels.hard_threshold import hard_threshold
from ctr_kernels.op import Op, Unsupported, deferred


def definition(x: torch.Tensor) -> str:
    return "reference"


def declines(x: torch.Tensor) -> str:
    raise Unsupported("not today")


def breaks(x: torch.Tensor) -> str:
    raise NotImplementedError("a bug, not a refusal")


def named(name):
    return lambda x: name


X = torch.ones(2, 3)


def test_the_device_picks_the_kernel_and_the_record_says_which():
    op = Op(reference=definition, cpu=named("cpu"), triton=named("triton"))
    assert (op.run(X).value, op.run(X).backend) == ("cpu", "cpu")
    elsewhere = X.to("meta")
    assert (op.run(elsewhere).value, op.run(elsewhere).backend) == ("triton", "triton")
    assert op(X) == "cpu"


@pytest.mark.parametrize("kernel", [None, declines])
def test_the_definition_runs_where_a_kernel_is_absent_or_declines(kernel):
    ran = Op(reference=definition, cpu=kernel).run(X)
    assert (ran.value, ran.backend) == ("reference", "reference")


def test_nothing_but_a_refusal_is_caught():
    with pytest.raises(NotImplementedError, match="a bug"):
        Op(reference=definition, cpu=breaks)(X)


def test_by_name_nobody_falls_back():
    op = Op(reference=definition, cpu=declines)
    with pytest.raises(Unsupported, match="not today"):
        op.on("cpu")(X)
    with pytest.raises(Unsupported, match="no triton implementation"):
        op.on("triton")
    assert op.kernels == ("cpu",)


def test_a_missing_compiler_is_a_refusal():
    op = Op(reference=definition, cpu=deferred("no_such_compiler", definition))
    assert op.run(X).backend == "reference"
    with pytest.raises(Unsupported, match="no_such_compiler"):
        op.on("cpu")(X)


@pytest.mark.parametrize("missing", ["numba", "triton"])
def test_without_a_compiler_the_op_imports_and_falls_back(missing):
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "import torch\n"
        "from ctr_kernels.hard_threshold import hard_threshold as op\n"
        "from ctr_kernels.op import Unsupported\n"
        "assert op(torch.tensor([[1.0, -2.0]]), 1).tolist() == [[0.0, -2.0]]\n"
        f"try: op.on({'cpu' if missing == 'numba' else 'triton'!r})(torch.ones(1, 2), 1)\n"
        "except Unsupported: print('declined')\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "declined\n"


@pytest.mark.parametrize("missing", ["numba", "triton"])
def test_without_a_compiler_attention_is_read_by_the_definition(missing):
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "import torch\n"
        "from ctr_kernels.op import Unsupported\n"
        "from ctr_kernels.sink_mass import sink_mass as op\n"
        "q = torch.zeros(1, 1, 2, 3)\n"
        "assert op(q, q, scaling=1.0).received.tolist() == [[[1.5, 0.5]]]\n"
        f"try: op.on({'cpu' if missing == 'numba' else 'triton'!r})(q, q, scaling=1.0)\n"
        "except Unsupported: print('declined')\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "declined\n"


@pytest.mark.parametrize("op", ["hard_threshold", "sink_mass"])
def test_importing_an_op_does_not_import_a_compiler(op):
    code = f"import sys, ctr_kernels.{op}; print({{'numba', 'triton'}} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "set()\n"


def test_a_gpu_kernel_asked_for_on_a_cpu_declines_outside_the_interpreter():
    code = (
        "import os; os.environ.pop('TRITON_INTERPRET', None)\n"
        "import torch\n"
        "from ctr_kernels.hard_threshold import hard_threshold as op\n"
        "from ctr_kernels.op import Unsupported\n"
        "try: op.on('triton')(torch.ones(1, 2), 1)\n"
        "except Unsupported as refusal: print(refusal)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "GPU" in out.stdout


def test_float64_falls_back_to_the_definition():
    assert hard_threshold.run(torch.ones(2, 3, dtype=torch.float64), 1).backend == "reference"
    assert hard_threshold.run(torch.ones(2, 3), 1).backend == "cpu"
