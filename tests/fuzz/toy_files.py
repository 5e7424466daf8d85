"""Files of the toy: trainings, certificates, plans of sweeps."""

import json
import struct
from contextlib import suppress
from pathlib import Path

from target import Run, allowed


def training(folder: Path) -> tuple[Run, list[bytes]]:
    """A training of the toy, as it lies and with its checksum put right."""
    from safetensors.numpy import load, save

    from toy import checkpoint
    from toy.recipe import Recipe
    from toy.train import begin

    file = folder / "t.safetensors"
    checkpoint.save_training(file, begin(Recipe(steps=4, checkpoints=2, seeds=2)))
    seed = file.read_bytes()

    def sealed(data: bytes) -> bytes:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["training"])
        found = load(data)
        header["sha256"] = checkpoint._checksum(found, header["about"])
        return save(found, {"training": json.dumps(header)})

    def run(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(*allowed()):
            checkpoint.load_training(file)
        with suppress(Exception):
            file.write_bytes(sealed(data))
        checkpoint.load_training(file)

    return run, [seed]


def certificate(folder: Path) -> tuple[Run, list[bytes]]:
    """A certificate, as it lies and sealed anew."""
    from toy.certify import check

    file = folder / "c.json"
    content = {
        "schema": check.SCHEMA, "statement": check.STATEMENT, "T": 3, "t": 1, "X": "0.01",
        "s": ["4", "4.01"], "b": ["0", "0.01"], "d": ["4", "4.01"], "fraction": "1",
        "leaves": {"s-": "1", "s+": "1"},
    }  # fmt: skip

    def run(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(*allowed()):
            check.check(file)
        try:
            said = json.loads(data)
            said.pop("sha256")
            file.write_text(check.sealed(said))
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            return
        check.check(file)

    return run, [check.sealed(content).encode()]


def sweep(folder: Path) -> tuple[Run, list[bytes]]:
    """The plan of a sweep of the toy."""
    from toy.sweep_plan import Plan
    from toy.sweep_state import PLAN, check_plan

    check_plan(Plan(), folder)
    seed = (folder / PLAN).read_bytes()

    def run(data: bytes) -> None:
        (folder / PLAN).write_bytes(data)
        check_plan(Plan(), folder)

    return run, [seed]
