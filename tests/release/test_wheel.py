"""What is published is whole: built, installed away from the checkout, and asked there."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

from tiny import random_text, tiny_llama

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("toy", "mech", "bridge", "kernels", "experiments")


def tracked(source: Path) -> set[str]:
    """Files of our packages that git knows, by the names they have once installed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *FOLDERS], cwd=source, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return {f.replace("kernels/", "ctr_kernels/", 1) if f.startswith("kernels/") else f
            for f in listed if f}  # fmt: skip


def test_the_wheel_has_every_file_of_the_packages(wheel, source):
    """Modules, templates, the ledger's records, py.typed."""
    within = set(zipfile.ZipFile(wheel).namelist())
    missing = tracked(source) - within
    assert not missing, f"{wheel.name} lacks {sorted(missing)}"
    strangers = {name.split("/")[0] for name in within if ".dist-info/" not in name}
    assert strangers == {"toy", "mech", "bridge", "ctr_kernels", "experiments"}


def test_the_sdist_has_what_a_reader_and_a_tester_need(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md"}
    wanted |= {"constraints.txt", "Makefile", "scripts/setup", "tests/conftest.py"}
    assert wanted <= names, wanted - names


def test_help_version_and_modules_are_of_the_wheel(installed, tmp_path):
    """The command runs from an empty folder, and what it runs is not this checkout."""
    listing = installed.run("ctr", "--help", cwd=tmp_path).stdout
    assert "ctr probe" in listing
    said = installed.run("ctr", "--version", cwd=tmp_path).stdout
    number = installed.wheel.name.split("-")[1]
    assert said.startswith(f"ctr {number}, Python ")  # no commit: this is no checkout
    code = "import toy, mech, bridge, ctr_kernels, experiments as e; print(e.__file__); " + (
        "print(*(p for m in (toy, mech, bridge, ctr_kernels, e) for p in m.__path__), sep='\\n')"
    )
    for place in installed.run("python", "-c", code, cwd=tmp_path).stdout.split():
        assert Path(place).is_relative_to(installed.site), place


def test_a_probe_and_the_ledger_answer_from_there(installed, tmp_path):
    """A model is read, the kernels are compiled, a page is written, a row is stored."""
    tiny_llama(tmp_path / "model")
    random_text(tmp_path / "some.txt", seed=0)
    options = ("--text", "some.txt", "--sequences", "2", "--seq", "64")
    installed.run("ctr", "probe", "model", *options, "--out", "found", cwd=tmp_path)
    assert "<html" in (tmp_path / "found" / "report.html").read_text()
    assert json.loads((tmp_path / "found" / "result.json").read_text())
    (row,) = json.loads(installed.run("ctr", "runs", "--json", cwd=tmp_path).stdout)
    assert row["versions"]["catch-tag-release"] == installed.wheel.name.split("-")[1]
    claims = json.loads(installed.run("ctr", "ledger", "--json", cwd=tmp_path).stdout)
    assert len(claims) > 50


def test_code_has_one_hash_in_a_wheel_and_in_a_checkout(installed, source, tmp_path):
    """A run that is kept under its code's hash is found again by either."""
    code = (
        "import experiments.probe as p; from experiments.sources import sources; print(sources(p))"
    )
    there = installed.run("python", "-c", code, cwd=tmp_path).stdout
    path = os.pathsep.join([str(source), str(source / "typings")])  # there lies ctr_kernels
    here = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True,
        env=installed.environment | {"PYTHONPATH": path},
    ).stdout  # fmt: skip
    assert there == here
    module = installed.site / "ctr_kernels" / "op.py"
    kept = module.read_text()
    try:
        module.write_text(kept + "\n")  # a kernel that differs is another code
        assert installed.run("python", "-c", code, cwd=tmp_path).stdout != here
    finally:
        module.write_text(kept)


def test_a_user_sees_our_types(installed, tmp_path):
    """pyright on a file of a user's: right uses pass, a wrong one is named.

    It would guess types from any source; told not to, it reads those of typed packages alone.
    """
    consumer = tmp_path / "consumer.py"
    shutil.copy(Path(__file__).parent / "consumer.py", consumer)
    settings = {"pythonVersion": "3.11", "useLibraryCodeForTypes": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", str(installed.bin / "python")]
    done = subprocess.run(
        [*command, "--outputjson"], cwd=tmp_path, capture_output=True, text=True,
        env=installed.environment,
    )  # fmt: skip
    found = json.loads(done.stdout)["generalDiagnostics"]
    wrongs = [d for d in found if d["severity"] in ("error", "warning")]
    assert len(wrongs) == 1, wrongs
    (wrong,) = wrongs
    assert wrong["rule"] == "reportArgumentType"
    line = consumer.read_text().splitlines()[wrong["range"]["start"]["line"]]
    assert "LINE OF THE ERROR" in line
    revealed = [d["message"] for d in found if d["severity"] == "information"]
    assert len(revealed) == 5
    assert not [message for message in revealed if "Unknown" in message]


def test_the_version_is_made_from_the_tag(tmp_path):
    """In a copy of the project's settings: v0.2.0 is 0.2.0, a commit after it is not."""

    def git(*arguments):
        names = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *names, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def told():
        code = "from setuptools_scm import get_version as v; print(v(fallback_version='0.1.0'))"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["setuptools_scm"] == {"fallback_version": "0.1.0"}
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    git("tag", "v0.2.0")
    assert told() == "0.2.0"
    git("commit", "-q", "--allow-empty", "-m", "two")
    assert told().startswith("0.2.1.dev1+g")
    assert version("catch-tag-release") != "0.0.0"
