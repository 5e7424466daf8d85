"""Every experiment's Config comes back from its stored JSON; what does not fit is refused."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from experiments import compress, serial
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


def test_a_field_that_came_later_takes_its_default():
    """Runs that were stored before there was the option can be asked again."""
    config = compress.Config(Reading("a/model", bos="never"), method="wanda")
    plain = stored(config)
    del plain["ranks"], plain["reading"]["on_disk"]
    assert restored(compress.Config, plain) == config
    plain["reading"]["bos"] = "perhaps"
    with pytest.raises(BadOption, match="perhaps"):
        restored(compress.Config, plain)


def test_a_field_that_is_missing_and_has_no_default_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Kind:
        size: int
        named: dict[str, int] = dataclasses.field(default_factory=dict)

    assert restored(Kind, {"kind": "Kind", "size": 1}) == Kind(1)
    with pytest.raises(BadOption, match="field size of Kind"):
        restored(Kind, {"kind": "Kind", "named": {}})
    with pytest.raises(BadOption):
        restored(Kind, {"kind": "Kind", "size": 1, "named": {"a": "b"}})
