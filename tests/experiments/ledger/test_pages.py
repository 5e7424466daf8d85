"""The documents say what the ledger holds: a changed digit names its file and line."""

from importlib import import_module

import pytest

from experiments import serial
from experiments.commands import COMMANDS
from experiments.ledger import earlier, pages, record
from experiments.ledger.claims import CLAIMS
from experiments.restored import restored

DOCUMENTS = [pages.README, *sorted(pages.ROOT.glob("docs/*.md"))]


def test_every_interval_of_the_documents_is_in_the_ledger():
    wrong = earlier.not_held(DOCUMENTS, record.records())
    assert not wrong, "not in the ledger (ctr ledger --add RUN holds a run's): " + "; ".join(wrong)


def test_a_changed_digit_is_found(tmp_path):
    page = tmp_path / "tags.md"
    text = (pages.ROOT / "docs" / "tags.md").read_text()
    assert "| 0.62 [0.45, 0.79] |" in text
    page.write_text(text.replace("| 0.62 [0.45, 0.79] |", "| 0.62 [0.45, 0.77] |", 1))
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "| 0.62 [0.45, 0.79]" in row)
    assert earlier.not_held([page], record.records()) == [f"tags.md:{line}: 0.62 [0.45, 0.77]"]


@pytest.mark.parametrize("file", [pages.EVIDENCE, pages.README], ids=lambda file: file.name)
def test_pages_are_as_the_ledger_makes_them(file):
    assert file.read_text() == pages.made_pages()[file], "run ctr ledger --write"


def test_every_kept_finding_is_of_a_claim():
    for kept in record.records():
        for finding in kept.findings:
            assert finding.claim in CLAIMS, (kept.name, finding.claim)


def test_a_run_of_the_smallest_preset_or_of_other_code_is_not_kept_unmarked():
    for kept in record.records():
        if kept.kind == "earlier":
            assert kept.marks
            continue
        assert bool(kept.marks) == (kept.preset == "smallest" or "+" in kept.commit)
        assert "/" not in "".join(str(v) for v in kept.inputs.values() if isinstance(v, str))


RUNS = [kept for kept in record.records() if kept.kind == "run"]


@pytest.mark.parametrize("kept", RUNS, ids=[kept.name for kept in RUNS])
def test_every_kept_run_can_be_asked_again(kept):
    module = import_module(COMMANDS[f"experiment {kept.experiment}"].module)
    assert serial.plain(restored(module.Config, kept.config)) == kept.config, "run it again"
