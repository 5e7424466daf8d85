"""What another tool read from the dense form, beside what ours read. Nothing of ours is imported.

A line: the largest differences, over the largest value, and the limit; beyond it the program ends
with an error.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

EPSILON = 0.1
FLOAT32 = 1e-4
"""Rounding of 30 blocks in float32, in another order; the compression itself moves logits by more
than a hundred times that, which `control` checks."""


def reference(folder: Path) -> dict[str, np.ndarray]:
    """The tensors that export.py wrote."""
    return load_file(folder / "reference.safetensors")


def alpha(pattern: np.ndarray) -> np.ndarray:
    """α_k = (1 / (T − k)) Σ_{i ≥ k} A[i, k], k from 0: equation 1, of (..., query, key)."""
    seq = pattern.shape[-1]
    return np.tril(pattern).sum(-2) / (seq - np.arange(seq))


def control(expected: dict[str, np.ndarray]) -> None:
    """The uncompressed model's logits must be told from the compressed one's."""
    off = _relative(expected["before"], expected["operators"])
    if off < 100 * FLOAT32:
        sys.exit(f"control: the compression moves logits by {off:.1e} only")


def report(tool: str, found: dict[str, Any], expected: dict[str, np.ndarray], limit: float) -> None:
    """Print a JSON line of relative differences; exit with an error where one is above `limit`."""
    control(expected)
    line: dict[str, Any] = {"tool": tool, "limit": limit}
    for name, value in found.items():
        line[name] = _relative(np.asarray(value), expected[name])
    if "alpha" in found:
        ours, theirs = expected["alpha"] > EPSILON, np.asarray(found["alpha"]) > EPSILON
        line["sinks"] = [int(ours.sum()), int(theirs.sum()), int((ours & theirs).sum())]
    sys.stdout.write(json.dumps(line) + "\n")
    if any(not line[name] <= limit for name in found):
        sys.exit(f"{tool}: beyond {limit}")


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / np.abs(expected).max())
