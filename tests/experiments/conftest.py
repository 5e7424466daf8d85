"""The `ctr` command as a user types it, and a model to give it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import CTR
from tiny import ENGLISH, tiny_llama

from experiments import cli


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
