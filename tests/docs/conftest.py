"""A folder in which the pages' commands and code run: a tiny model and a small text."""

import random
import sys
import warnings
from pathlib import Path

import pytest
from tiny import ENGLISH, tiny_llama

from experiments import cli


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "tiny"
    tiny_llama(folder, ENGLISH, room=512)
    return folder


@pytest.fixture
def place(tmp_path, model_folder, monkeypatch) -> Path:
    """An empty working folder with the texts that pages name, and a store of its own."""
    words = " ".join(random.Random(0).choices(ENGLISH[2:], k=8000))
    for name in ("wiki.txt", "some.txt", "wiki.test.raw"):
        (tmp_path / name).write_text(words)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTR_STORE", str(tmp_path / "store" / "runs.sqlite"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


@pytest.fixture
def ctr(monkeypatch):
    """The command in this process; warnings as a user has them, not as errors."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["ctr", *arguments])
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            try:
                cli.main()
            except SystemExit as left:
                return int(left.code or 0)
        return 0

    return run
