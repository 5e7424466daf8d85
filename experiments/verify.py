"""Is a saved model what was saved: its files, its tensors, and what each linear stores?"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table

from experiments.progress import paper


@dataclass(frozen=True)
class Config:
    """Check a folder that `ctr compress MODEL OUT` wrote."""

    folder: tyro.conf.Positional[Path]
    """The folder."""


def main(config: Config) -> int:
    """Print what each linear stores; exit code 0.

    Raises:
        BadInput: a file, a tensor or a count is not what the manifest says.
    """
    from bridge.checkpoint import reread

    said = reread(config.folder)
    table = Table("linear", "parameters", "stored numbers", "density", "bits each", box=None)
    for name, layer in said["layers"].items():
        parameters, kept = layer["parameters"], layer["kept"]
        bits = f"{layer['bits'] / parameters:.2f}"
        table.add_row(name, f"{parameters:,}", f"{kept:,}", f"{kept / parameters:.4%}", bits)
    console = paper()
    console.print(table)
    console.print(
        f"{config.folder}: {said['form']}, {said['provenance'].get('method', 'method not told')}. "
        f"{len(said['files'])} files and all tensors are those that were saved; the counts above "
        "are of the model as it was loaded now."
    )
    return 0
