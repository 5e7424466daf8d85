"""The `ctr` command in tests: smallest sizes, and what answers and refusals leave behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ENGLISH, tiny_llama

from experiments import cli

CTR = Path(sys.executable).parent / "ctr"
SMALL = ("--windows", 3, "--context", 32, "--sequences", 2, "--seq", 64, "--calibration", 2)


def answered(done: subprocess.CompletedProcess[str], out: Path) -> dict:
    """The stored result of a run that must have gone well."""
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    page = (out / "report.html").read_text()
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    pictures = sorted(p.name for p in out.glob("pictures/*"))
    assert len([p for p in pictures if p.endswith(".svg")]) * 2 == len(pictures)
    return result


def expect_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line that names what is wrong, exit code 2, and no folder left behind."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("ctr: error:")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A tiny model whose tokenizer knows a few words of any text."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_llama(folder, ENGLISH, room=512)
    return folder


@pytest.fixture
def ctr(tmp_path):
    """Run the command in an empty folder, with a store and a cache of its own."""

    def run(*arguments, **environment) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [CTR, *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "CTR_STORE": str(tmp_path / "store" / "runs.sqlite"),
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                **environment,
            },
        )

    return run


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """The same command inside this process: quick, for what is refused before any real work."""

    def run(*arguments) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CTR_STORE", str(tmp_path / "store" / "runs.sqlite"))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setattr(sys, "argv", ["ctr", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run
