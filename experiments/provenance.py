"""What a run depended on, recorded so that the same question can be asked again."""

import hashlib
import importlib.metadata
import platform
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

LIBRARIES = (
    "catch-tag-release", "torch", "transformers", "jax", "flax", "optax", "numpy", "python-flint",
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """What a run read: the model, the text, and the decisions taken on the way."""

    model: str | None = None
    model_sha256: str | None = None
    text: str | None = None
    text_sha256: str | None = None
    bos: str | None = None
    first_ids: tuple[int, ...] = ()
    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None
    kernels: dict[str, str] = field(default_factory=dict)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries whose numbers we report, and of this code.

    With the processor: libraries choose their loops by it, and other loops have other last bits.
    """
    found = {"python": platform.python_version(), "platform": platform.platform()}
    found["processor"] = processor()
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "missing"
    return found | {"commit": commit()}


def processor() -> str:
    """Maker, family, model and stepping, and a hash of what instructions there are."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    lines = [line.partition(":") for line in first.splitlines()]
    facts = {name.strip(): value.strip() for name, _, value in lines}
    words = ("vendor_id", "cpu family", "model", "stepping")
    named = " ".join(facts[word] for word in words if word in facts)
    flags = " ".join(sorted((facts.get("flags") or facts.get("Features") or "").split()))
    return f"{platform.machine()} {named} {sha256_text(flags)[:8]}"


def commit() -> str:
    """The commit of this checkout, with "+changes" where files differ from it; "" outside one."""
    root = Path(__file__).resolve().parent.parent
    git = ["git", "-C", str(root)]
    try:
        if not (root / ".git").exists():
            return ""
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True)
    except OSError:  # no git here
        return ""
    return head.stdout.strip()[:12] + ("+changes" if changed.stdout else "")


def sha256_text(text: str) -> str:
    """SHA-256 of the text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss here: Linux lets a process inherit that from the one that started it.
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
