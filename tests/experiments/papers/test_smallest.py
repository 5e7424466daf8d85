"""Every figure and table of the papers runs at its smallest, and says what it found."""

import dataclasses
import importlib
import inspect
import json

import pytest

from experiments import serial
from experiments.findings import Finding
from experiments.ledger.claims import CLAIMS
from experiments.papers.roster import PAPERS
from experiments.presets import Preset
from experiments.progress import Progress


@pytest.mark.model
@pytest.mark.parametrize("name", PAPERS)
def test_runs_at_its_smallest(name):
    module = importlib.import_module(PAPERS[name].module)
    assert set(module.PRESETS) == set(Preset.__args__)
    for config in module.PRESETS.values():
        assert dataclasses.is_dataclass(config)
        assert type(config) is module.Config
    result = module.run(module.PRESETS["smallest"], Progress())
    assert result.findings
    for finding in result.findings:
        assert isinstance(finding, Finding)
        assert CLAIMS[finding.claim].experiment == name.removeprefix("experiment "), finding.claim
        assert finding.control or finding.effect is None
    assert json.loads(serial.dumps(result))["config"] == serial.plain(module.PRESETS["smallest"])
    sections = module.sections(result)
    assert sections
    assert any(section.tables for section in sections)
    assert all(section.title for section in sections)


@pytest.mark.parametrize("name", PAPERS)
def test_is_one_short_file(name):
    module = importlib.import_module(PAPERS[name].module)
    assert len(inspect.getsource(module).splitlines()) <= 100
