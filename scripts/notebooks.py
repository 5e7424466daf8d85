"""Run notebooks/*.py, each in a kernel of its own, and write them with their outputs.

    python scripts/notebooks.py FOLDER [NOTEBOOK.py ...]

A cell that raises ends the program with an error; nothing is written of that notebook.
"""

import os
import sys
import time
from pathlib import Path

import jupytext
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent


def main(folder: Path, chosen: list[Path]) -> None:
    """Write FOLDER/NAME.ipynb of every notebook chosen, or of all."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder.mkdir(parents=True, exist_ok=True)
    for path in chosen or sorted((ROOT / "notebooks").glob("*.py")):
        begun = time.perf_counter()
        notebook = jupytext.read(path)
        # The kernel of this interpreter, whatever kernels are installed for the user.
        client = NotebookClient(notebook, timeout=900, kernel_name="python3")
        client.execute(cwd=str(folder))
        written = folder / f"{path.stem}.ipynb"
        jupytext.write(notebook, written)
        sys.stdout.write(f"{written}  {time.perf_counter() - begun:.0f} s\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(given) for given in sys.argv[2:]])
