"""Every experiment's Config comes back from its stored JSON; what does not fit is refused."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from experiments import serial
from experiments.commands import COMMANDS
from experiments.papers.roster import PAPERS
from experiments.restored import restored
from experiments.settings import BadOption, Reading


def stored(value):
    return json.loads(serial.dumps(value))


@pytest.mark.parametrize("name", PAPERS)
def test_every_preset_comes_back(name):
    module = importlib.import_module(PAPERS[name].module)
    for config in module.PRESETS.values():
        assert restored(module.Config, stored(config)) == config


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - set(PAPERS)))
def test_every_commands_defaults_come_back(name):
    kind = importlib.import_module(COMMANDS[name].module).Config
    try:
        config = kind()
    except TypeError:
        pytest.skip("it has options without a default")
    assert restored(kind, stored(config)) == config


def test_a_path_comes_back_as_a_path_and_infinity_as_a_number():
    @dataclasses.dataclass(frozen=True)
    class Kind:
        reading: Reading
        worst: float
        pair: tuple[int, str]
        some: tuple[float, ...]

    value = Kind(Reading(text=Path("a.txt")), float("inf"), (1, "b"), (1.0, 2.5))
    assert restored(Kind, stored(value)) == value


@pytest.mark.parametrize(
    "change",
    [
        {"on_disk": 1},
        {"bos": "perhaps"},
        {"new": 3},
        {"kind": "Other"},
        {"text": 5},
    ],
)
def test_what_is_no_config_of_today_is_refused(change):
    with pytest.raises(BadOption):
        restored(Reading, stored(Reading()) | change)


def test_a_field_that_is_missing_is_refused():
    plain = stored(Reading())
    del plain["device"]
    with pytest.raises(BadOption, match="device"):
        restored(Reading, plain)
