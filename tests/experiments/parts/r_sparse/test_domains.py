"""Texts of several kinds, from files of several forms; halves share nothing."""

import gzip
import json

import pytest

from experiments.parts.r_sparse import domains
from experiments.parts.work import SMALLEST
from experiments.settings import BadOption, Reading
from mech.load import load


@pytest.fixture(scope="module")
def loaded(model):
    return load(str(model))


def lines(file, rows):
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    return file


def test_text_documentation_code_and_files_are_domains(loaded, tmp_path, model):
    text = tmp_path / "wiki.test.raw"
    text.write_text("the of a and is " * 4000)
    more = lines(tmp_path / "c4.first.jsonl.gz", [{"text": "the of a is " * 400}] * 9)
    found = domains.domains(loaded, Reading(str(model), text=text), SMALLEST, [more])
    assert [one.name for one in found] == ["wiki", "documentation", "code", "c4"]
    assert len({one.sha256 for one in found}) == 4
    for one in found:
        assert one.calibration.shape == (2, 64)
        assert one.windows.shape == (2, 64)
        assert one.sequences.shape == (3, 64)


def test_questions_are_read_with_their_answers(tmp_path):
    rows = [{"query": "Q: sky?", "choices": ["blue", "red"], "gold": 0}, {"text": "plain"}]
    file = lines(tmp_path / "task.jsonl", rows)
    assert domains._lines(file) == "Q: sky? blue\n\nplain"


def test_halves_of_a_file_share_nothing(tmp_path):
    file = lines(tmp_path / "t.jsonl", [{"text": f"{i:04d}"} for i in range(100)])
    halves = [domains._half("t", file, half).text for half in ("calibration", "evaluation")]
    assert "".join(halves) == domains._lines(file)


@pytest.mark.parametrize("line", ['{"other": 1}', "no json", "[1]", '{"query": "q", "gold": 0}'])
def test_other_lines_are_refused_in_one_line(tmp_path, line):
    file = tmp_path / "bad.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(BadOption, match=r"bad\.jsonl: give lines of JSON"):
        domains._lines(file)


def test_missing_and_doubled_files_are_refused(loaded, tmp_path, model):
    with pytest.raises(BadOption, match="No such file"):
        domains._lines(tmp_path / "none.jsonl")
    twice = [lines(tmp_path / "code.jsonl", [{"text": "x"}])]
    with pytest.raises(BadOption, match="two texts of one name"):
        domains.domains(loaded, Reading(str(model)), SMALLEST, twice)
