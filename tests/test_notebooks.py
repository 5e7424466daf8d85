"""Every notebook runs from top to bottom, and shows its pictures.

`make notebooks` writes them with their outputs by the same program, each in a kernel of its own.
Here they share one, whose names are forgotten between them.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "notebooks.py"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
PICTURES = {
    "1_sinks_and_tags": 4, "2_compression_and_sinks": 2, "3_the_theorem": 3, "4_decode_faster": 1
}  # fmt: skip


AFTER = "# %%\nprint({'np', 'torch', 'model'} & globals().keys() or 'no names of another')\n"


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, str]:
    """Where they were written, and what was said; the last, of ours, tells what names it sees."""
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "after.py").write_text(AFTER)
    command = [sys.executable, SCRIPT, "--one-kernel", folder, *NOTEBOOKS, folder / "after.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return folder, done.stderr


def outputs(ran: tuple[Path, str], name: str) -> list[dict[str, Any]]:
    folder, said = ran
    assert (folder / f"{name}.ipynb").exists(), said[-3000:]
    cells = json.loads((folder / f"{name}.ipynb").read_text())["cells"]
    return [output for cell in cells for output in cell.get("outputs", ())]


def test_there_are_four():
    assert [path.stem for path in NOTEBOOKS] == list(PICTURES)


@pytest.mark.model
@pytest.mark.parametrize("name", PICTURES)
def test_it_runs_and_shows_its_pictures(name, ran):
    pictures = ["image/png" in output.get("data", {}) for output in outputs(ran, name)]
    assert sum(pictures) == PICTURES[name]


@pytest.mark.model
def test_a_notebook_does_not_see_the_names_of_another(ran):
    assert ["".join(o["text"]) for o in outputs(ran, "after")] == ["no names of another\n"]
