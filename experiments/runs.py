"""The stored runs, as a table or as JSON."""

import sys
from dataclasses import dataclass

from rich.table import Table

from experiments import serial, store
from experiments.progress import paper


@dataclass(frozen=True)
class Config:
    """What to show of the run store."""

    json: bool = False
    """Everything that is stored, as JSON on standard output."""
    last: int = 20
    """How many runs, the newest last."""


def main(config: Config) -> int:
    """Print the runs; exit code 0."""
    found = store.rows(store.store_path())
    found = found[-config.last :] if config.last > 0 else found
    if config.json:
        sys.stdout.write(serial.dumps(found))
        return 0
    table = Table("run", "started", "command", "model", "seconds", "peak GiB", "out", box=None)
    for row in found:
        table.add_row(
            str(row.id),
            row.started,
            row.command,
            str(row.inputs.get("model") or "")[-30:],
            f"{row.wall_seconds:.0f}",
            f"{row.peak_bytes / 2**30:.2f}",
            row.out,
        )
    paper().print(table)
    return 0
