"""A run's key: it changes with everything that its answer depends on, and with nothing else."""

import types
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from experiments import serial, sources
from experiments.settings import BadOption, Reading
from experiments.sweeping import keys, work


@dataclass(frozen=True)
class Config:
    reading: Reading
    text: Path | None = None
    seed: int = 0
    save: Path | None = None


MODULE = types.ModuleType("experiments.perplexity")


def hashed(config: Config, threads: int = 1) -> str:
    return keys.hashed(keys.key(MODULE, config, threads))


@pytest.fixture
def asked(tmp_path) -> Config:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"0")
    (tmp_path / "text").write_bytes(b"abc")
    return Config(Reading(str(tmp_path / "model")), tmp_path / "text")


def test_equal_questions_have_equal_keys_and_others_have_others(asked, tmp_path):
    one = hashed(asked)
    assert one == hashed(replace(asked, seed=0))
    assert one != hashed(replace(asked, seed=1))
    assert one != hashed(asked, threads=2)
    (tmp_path / "text").write_bytes(b"abd!")
    other = hashed(asked)
    assert other != one
    (tmp_path / "text").write_bytes(b"abc")
    assert hashed(asked) == one
    (tmp_path / "model" / "weights").write_bytes(b"01")
    assert hashed(asked) != one


def test_other_code_and_other_libraries_are_another_question(asked, monkeypatch):
    one = hashed(asked)
    monkeypatch.setattr(keys, "_code", lambda module: "other")
    other = hashed(asked)
    monkeypatch.setattr(keys, "_versions", lambda: {"torch": "0"})
    assert len({one, other, hashed(asked)}) == 3


def test_the_tasks_of_the_environment_are_a_part_of_the_question(asked, tmp_path, monkeypatch):
    monkeypatch.delenv("CTR_DATA", raising=False)
    one = hashed(asked)
    monkeypatch.setenv("CTR_DATA", str(tmp_path))
    assert hashed(asked) == one
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.jsonl").write_text("{}")
    with_tasks = hashed(asked)
    (tmp_path / "tasks" / "a.jsonl").write_text("{} ")
    assert len({one, with_tasks, hashed(asked)}) == 3


@pytest.mark.parametrize("package", [True, False])
def test_a_module_of_the_users_lies_anywhere(tmp_path, monkeypatch, package):
    """Its code is its package, or the files beside it that it imports; not others."""
    monkeypatch.syspath_prepend(tmp_path)
    name = "of_the_users.asks" if package else "users_asks"
    file = tmp_path / f"{name.replace('.', '/')}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{'from . import' if package else 'import'} users_help\n")
    helper = file.with_name("users_help.py")
    helper.touch()
    if package:
        (file.parent / "__init__.py").touch()
    found = []
    for text in ("", "x = 1\n"):
        helper.write_text(text)
        sources._digest.cache_clear()
        module = types.ModuleType(name)
        module.__file__ = str(file)
        found.append(sources.sources(module))
    (tmp_path / "unread.py").touch()
    assert found[0] != found[1] == sources.sources(module)


def test_places_of_files_are_told_from_the_root(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    near = replace(asked, reading=replace(asked.reading, model="model"), text=Path("text"))
    assert keys.settled(Config, serial.plain(near)) == asked
    hub = replace(asked, reading=replace(asked.reading, model="a/hub-id"))
    assert keys.settled(Config, serial.plain(hub)).reading.model == "a/hub-id"


def test_a_run_that_writes_is_refused(asked, tmp_path):
    writes = serial.plain(replace(asked, save=tmp_path / "new"))
    with pytest.raises(BadOption, match=r"save=.*leave it out"):
        keys.settled(Config, writes)


@pytest.mark.parametrize(
    ("part", "words"), [("code", "code on .* is not the driver's"), ("versions", "torch 1, not 2")]
)
def test_a_worker_with_other_code_or_libraries_does_not_answer(part, words):
    here = {"code": "0" * 64, "versions": {"torch": "1"}}
    work.check(here, here)
    there = {"code": "1" * 64, "versions": {"torch": "2"}}
    with pytest.raises(work.Differs, match=words):
        work.check(here | {part: there[part]}, here)
