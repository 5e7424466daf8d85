"""A wheel made from the last commit, and an environment that has it and nothing of the tree.

What is edited in the checkout meanwhile changes nothing here, and nothing is written into it.
"""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent


def bare() -> dict[str, str]:
    """The environment without our PYTHONPATH, in which pip would find the checkout installed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


class Installed(NamedTuple):
    """The wheel, the environment's commands, and where its packages lie."""

    wheel: Path
    bin: Path
    site: Path

    @property
    def environment(self) -> dict[str, str]:
        return bare()

    def run(self, *arguments: str, cwd: Path, check: bool = True):
        """Run one of its commands away from the checkout, without our PYTHONPATH."""
        keep = ("PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HUB_OFFLINE")
        told = {name: os.environ[name] for name in keep if name in os.environ}
        # Threads are given: what is faster here would be measured for seconds.
        told |= {"CTR_STORE": str(cwd / "runs.sqlite"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [str(self.bin / arguments[0]), *arguments[1:]],
            cwd=cwd, env=told, capture_output=True, text=True,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done


def built(kind: str, source: Path, into: Path) -> Path:
    """Make `--wheel` or `--sdist` of a folder; the file."""
    command = [sys.executable, "-m", "build", "--no-isolation", kind, "-o", str(into), str(source)]
    subprocess.run(command, check=True, capture_output=True, env=bare())
    (made,) = into.iterdir()
    return made


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """The last commit with its tags, in a clone of its own."""
    place = tmp_path_factory.mktemp("source") / "checkout"
    subprocess.run(["git", "clone", "-q", "--shared", str(ROOT), str(place)], check=True)
    return place


@pytest.fixture(scope="session")
def sdist(source, tmp_path_factory) -> Path:
    return built("--sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel(sdist, tmp_path_factory) -> Path:
    """Made from the sdist, unpacked away from git: what is missing there is missing here."""
    place = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "-xzf", str(sdist), "-C", str(place)], check=True)
    (source,) = place.iterdir()
    return built("--wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Installed:
    """The heavy libraries are those of the environment that runs the tests.

    A path that a .pth file names is searched, its own .pth files are not read: the editable
    install, which would find this checkout, is out of sight.
    """
    place = tmp_path_factory.mktemp("venv")
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
    subprocess.run([*command, "--no-deps", "--no-index", str(wheel)], check=True, env=bare())
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = place / "lib" / version / "site-packages"
    (site / "heavy.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return Installed(wheel, place / "bin", site)
