"""Strict by default: one thread, shapes checked, warnings are errors, fresh memory is NaN."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported: no GPU here
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Dtype promotion is not strict: optax divides a float by an integer step count.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

# `HYPOTHESIS_PROFILE=long make test` searches a hundred times deeper.
hypothesis.settings.register_profile(
    "quick", deadline=None, max_examples=50, derandomize=True, print_blob=True
)
hypothesis.settings.register_profile("long", deadline=None, max_examples=5000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# Two shared cores: small linear algebra is cheaper on one thread.
torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("CTR_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """Memory that nobody wrote is NaN: a kernel that reads it cannot pass by luck."""
    empty, empty_like, np_empty = torch.empty, torch.empty_like, np.empty

    def poison(tensor):
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    def poison_array(array):
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    monkeypatch.setattr(torch, "empty", lambda *a, **k: poison(empty(*a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: poison(empty_like(*a, **k)))
    monkeypatch.setattr(np, "empty", lambda *a, **k: poison_array(np_empty(*a, **k)))


@pytest.fixture
def measured(request):
    """`measured("peak memory", "0.44 GB", "below 1.5 GB")`: a line below the test results.

    A limit that is only asserted says that it was kept, not by how much. The line travels with
    the test's report, because several processes may share the work.
    """

    def record(what: str, found: object, wanted: str) -> None:
        request.node.user_properties.append(("measured", f"{what}: {found} (wanted: {wanted})"))

    return record


def pytest_terminal_summary(terminalreporter):
    """Print what the tests measured."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    lines = dict.fromkeys(
        line
        for report in reports
        for name, line in getattr(report, "user_properties", ())
        if name == "measured"
    )
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def data():
    """The folder of real text; tests that need it are skipped, and say so, where it is missing."""
    if not DATA.is_dir():
        pytest.skip(f"no data at {DATA}; set CTR_DATA")
    return DATA
