"""Every notebook runs from top to bottom, in a kernel of its own, and shows its pictures.

`make notebooks` writes them with their outputs by the same program.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
PICTURES = {
    "1_sinks_and_tags": 4, "2_compression_and_sinks": 2, "3_the_theorem": 3, "4_decode_faster": 1
}  # fmt: skip


def test_there_are_four():
    assert [path.stem for path in NOTEBOOKS] == list(PICTURES)


@pytest.mark.model
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_shows_its_pictures(path, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "notebooks.py"), str(tmp_path), str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((tmp_path / f"{path.stem}.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[path.stem]
