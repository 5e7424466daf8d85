"""What operations cost on this machine: numbers that were measured once and are kept."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers

from mech.disk import write_whole
from mech.errors import BadInput


@dataclass(frozen=True)
class Cost:
    """Seconds of a method: once, an entry of a matrix, an operation of its `work`, and, each time
    that the operator it left is called, an entry. resident: bytes of what it compiles or imports.
    """

    start: float
    entry: float
    operation: float
    call: float
    resident: int


@dataclass(frozen=True)
class Rates:
    """Seconds of processor time, of one thread or of as many as `machine` names.

    base: bytes resident of a process that has compressed a model with nothing in it; start: the
    seconds that this takes. operation, element, attended: of a pass of a model, a
    floating-point operation of its linears, a number that is written, a product of a query and a
    key. looked: a query, key and head where attention is looked at. scored: an entry of the
    vocabulary. squared: a number whose square is summed; moment: an operation of Σ x xᵀ.
    hashed, written: a byte.
    """

    machine: str
    base: int
    start: float
    operation: float
    element: float
    attended: float
    looked: float
    scored: float
    squared: float
    moment: float
    hashed: float
    written: float
    methods: Mapping[str, Cost]


def base(rates: Rates | None, name: str) -> int:
    """Bytes resident of a process that has run the method on nothing; 0 where that is not known."""
    known = rates is not None and name in rates.methods
    return rates.base + rates.methods[name].resident if known and rates is not None else 0


def machine() -> str:
    """What rates are kept by: processor, threads, versions."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].partition(":")[2].strip() if lines else cpu
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    return f"{cpu}, {threads}, torch {torch.__version__}, transformers {transformers.__version__}"


def kept() -> Path:
    """Where the rates of this machine lie: under $XDG_CACHE_HOME, or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = hashlib.sha256(machine().encode()).hexdigest()[:16]
    return Path(home) / "catch-tag-release" / f"rates-{name}.json"


def read(file: Path) -> Rates | None:
    """What was measured here before; None where nothing was.

    Raises:
        BadInput: the file is damaged, or of another machine.
    """
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        methods = {name: Cost(**cost) for name, cost in content.pop("methods").items()}
        found = Rates(**content, methods=methods)
        numbers = [
            *list(vars(found).values())[1:-1],
            *(n for c in methods.values() for n in vars(c).values()),
        ]
        if not all(isinstance(n, int | float) and 0 <= n < float("inf") for n in numbers):
            raise ValueError("a rate is no number")
        if found.machine != machine():
            raise ValueError("another machine")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{file} is damaged: delete it and measure again (--measure)") from error
    return found


def write(file: Path, rates: Rates) -> None:
    """Keep the rates, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, (json.dumps(asdict(rates), indent=1) + "\n").encode())


def elements(hidden: int, widest: int) -> int:
    """Numbers a token that a block writes beside its products: norms, rotations, gates, sums."""
    return 12 * hidden + 3 * widest


def passed(
    shape: Sequence[int], numbers: float, written: float, attending: float
) -> tuple[float, float, float]:
    """What one pass takes: operations of `numbers` of linears, numbers written, products of
    queries and keys of width `attending`, all blocks together."""
    sequences, seq = shape
    tokens = sequences * seq
    return 2.0 * tokens * numbers, float(tokens * written), 4.0 * tokens * seq * attending
