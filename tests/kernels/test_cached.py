"""Machine code on disk is that of the sources, of all of them, whoever wrote it when."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ctr_kernels import sources

MODULE = """
from ctr_kernels import part
from ctr_kernels.cached import cached
@cached()
def whole(x):
    return part.part(x)
"""
RUN = """
from ctr_kernels.op.whole import whole
print(whole(10), len(whole.stats.cache_hits), whole(1.0))
"""


@pytest.fixture
def package(tmp_path):
    """A package in which a function of an op's folder calls one of another file."""
    folder = tmp_path / "ctr_kernels"
    (folder / "op").mkdir(parents=True)
    for name in ("cached.py", "sources.py"):
        shutil.copy(Path(sources.__file__).with_name(name), folder)
    (folder / "__init__.py").touch()  # this one only, not a portion of the installed one
    (folder / "op" / "whole.py").write_text(MODULE)
    return folder


def upgrade(package: Path, factor: int) -> None:
    text = f"import numba\n@numba.njit\ndef part(x):\n    return {factor} * x\n"
    (package / "part.py").write_text(text)


def started(package: Path, code: str = RUN, **more: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(package.parent), **more}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen) -> str:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return out.strip()


def test_an_upgrade_of_another_file_is_seen(package):
    upgrade(package, 2)
    at_once = [started(package), started(package)]
    assert set(map(said, at_once)) <= {"20 0 2.0", "20 1 2.0"}
    assert said(started(package)) == "20 1 2.0"
    upgrade(package, 3)
    assert said(started(package)) == "30 0 3.0"
    # In the old one's place: nothing is left to pile up.
    files = sorted(p.suffix for p in (package / "op" / "__pycache__").iterdir())
    assert files == [".nbc", ".nbc", ".nbi"]


def test_files_that_another_process_replaced_are_not_run(package):
    upgrade(package, 2)
    said(started(package))
    ints, floats = sorted((package / "op" / "__pycache__").glob("*.nbc"))
    ints.write_bytes(floats.read_bytes())  # both had chosen its name
    assert said(started(package)) == "20 0 2.0"
    old = ints.read_bytes()
    upgrade(package, 3)
    said(started(package))
    ints.write_bytes(old)  # an old version's process, still at work
    assert said(started(package)) == "30 0 3.0"


def test_no_folder_to_write_to_is_no_error(package):
    upgrade(package, 2)
    (package / "op" / "__pycache__").write_text("not a folder")
    no_home = package / "part.py"
    assert said(started(package, HOME=str(no_home), XDG_CACHE_HOME=str(no_home))) == "20 0 2.0"
