"""Run notebooks/*.py, each in a kernel of its own, and write them with their outputs.

    python scripts/notebooks.py [--one-kernel] FOLDER [NOTEBOOK.py ...]

A cell that raises ends the program with an error; nothing is written of that notebook. With
--one-kernel they share a process, whose names are forgotten between two notebooks: what they all
import and read is then paid for once.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jupytext
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).parent.parent


def main(folder: Path, chosen: list[Path], *, shared: bool) -> None:
    """Write FOLDER/NAME.ipynb of every notebook chosen, or of all."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder.mkdir(parents=True, exist_ok=True)
    with _kernel(folder, shared) as kernel:
        for path in chosen or sorted((ROOT / "notebooks").glob("*.py")):
            begun = time.perf_counter()
            notebook = jupytext.read(path)
            notebook.cells.insert(0, new_code_cell("%reset -f"))
            # The kernel of this interpreter, whatever kernels are installed for the user.
            client = NotebookClient(notebook, timeout=900, kernel_name="python3", km=kernel)
            client.execute(cwd=str(folder))
            del notebook.cells[0]
            written = folder / f"{path.stem}.ipynb"
            jupytext.write(notebook, written)
            sys.stdout.write(f"{written}  {time.perf_counter() - begun:.0f} s\n")


@contextmanager
def _kernel(folder: Path, shared: bool) -> Iterator[KernelManager | None]:
    """One for all notebooks; None where each is to start its own."""
    if not shared:
        yield None
        return
    kernel = KernelManager(kernel_name="python3")
    kernel.start_kernel(cwd=str(folder))
    try:
        yield kernel
    finally:
        kernel.shutdown_kernel(now=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one-kernel", action="store_true")
    parser.add_argument("folder", type=Path)
    parser.add_argument("notebooks", type=Path, nargs="*")
    asked = parser.parse_args()
    main(asked.folder, asked.notebooks, shared=asked.one_kernel)
