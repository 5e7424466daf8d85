"""Options that several commands share; one definition, one help text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

SEEDS = 2**32 - 1  # the largest that every generator here takes
Bos = Literal["auto", "require", "never"]


@dataclass(frozen=True)
class Reading:
    """Which model reads what."""

    model: tyro.conf.Positional[str] = "smollm2"
    """Hub id, local folder, GGUF file, or smollm2 (the demo model)."""
    text: Path | None = None
    """Text file; its first half calibrates, its second half evaluates. Default: documentation
    strings of installed libraries."""
    bos: Bos = "auto"
    """Whether sequences start with the tokenizer's BOS token."""
    device: str = "cpu"
    """Where the model runs."""
    on_disk: bool = False
    """Leave the weights in their folder and read one block at a time: for a model larger than
    memory."""


@dataclass(frozen=True)
class Budget:
    """How much of a matrix is kept, and how it is spent."""

    sparsity: float = 0.5
    """Share of the weights that is removed, by methods that remove weights."""
    rank_ratio: float = 0.25
    """OATS: share of the kept parameters in the low-rank term."""
    iterations: int = 80
    """OATS: alternations of the definition (full SVDs), whose error the fast loop reaches."""
    bits: int | None = None
    """Quantisers: bits of a code, 2 to 8. Default: 4, or 3 where a low-rank term follows."""
    group: int | None = None
    """Quantisers: consecutive columns that share a scale. Default: 64 (32 for mxint)."""
    grid: Literal["nearest", "mxint"] | None = None
    """Quantisers: a scale of floats or a power of two. Default: nearest."""
    act_order: bool = False
    """GPTQ: columns by falling second moment of their inputs."""
    rank: int | None = None
    """Low-rank terms beside a quantised matrix: their rank. Default: 32."""
    k: int | None = None
    """sink-heads: columns of W_Q and W_K that are kept. Default: 10."""


@dataclass(frozen=True)
class Sizes:
    """How much text: more gives narrower intervals and takes longer."""

    calibration: int = 32
    """Calibration sequences."""
    windows: int = 24
    """Evaluation windows; intervals are over windows."""
    context: int = 256
    """Tokens of a calibration sequence and of an evaluation window."""
    sequences: int = 20
    """Sequences to look for sinks on."""
    seq: int = 128
    """Tokens of such a sequence, at least 64."""


class BadOption(ValueError):
    """An option's value that cannot be used; the message names it and says what can."""


def some(option: str, values: Sequence[object]) -> None:
    """At least one value, and none twice.

    Raises:
        BadOption: it is not so.
    """
    if not values or len(set(values)) < len(values):
        given = " ".join(map(str, values))
        raise BadOption(f"--{option} {given}".rstrip() + ": give one or more, each once")


def within(option: str, value: float, low: float, high: float = math.inf) -> None:
    """low <= value <= high.

    Raises:
        BadOption: it is not, or it is NaN.
    """
    if not low <= value <= high:
        wanted = f"at least {low}" if high == math.inf else f"a number from {low} to {high}"
        raise BadOption(f"--{option} {value}: give {wanted}")


def multiple(option: str, value: int, of: int) -> None:
    """value = k of, k >= 1.

    Raises:
        BadOption: it is not.
    """
    within(option, value, of)
    if value % of:
        raise BadOption(f"--{option} {value}: give a multiple of {of}")


def between(option: str, value: float, low: float, high: float) -> None:
    """low < value < high.

    Raises:
        BadOption: it is not, or it is NaN.
    """
    if not low < value < high:
        above = f"a number above {low}" + ("" if high == math.inf else f" and below {high}")
        raise BadOption(f"--{option} {value}: give {above}")
