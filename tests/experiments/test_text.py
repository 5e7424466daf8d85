"""The default text: human, the same every time, and its halves apart."""

import pytest

from experiments.text import SHORTEST, UnreadableText, read_text


def test_the_halves_share_no_string():
    halves = [read_text(None, half).text.split("\n\n") for half in ("calibration", "evaluation")]
    assert not set(halves[0]) & set(halves[1])
    for half in halves:
        assert sum(map(len, half)) > 400_000
        assert min(map(len, half)) >= SHORTEST


def test_the_text_is_prose():
    text = read_text(None, "evaluation").text
    assert ">>>" not in text
    letters = sum(c.isalpha() or c.isspace() for c in text)
    assert letters / len(text) > 0.85


def test_a_file_is_cut_in_two(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("abcdef")
    assert read_text(file, "calibration").text == "abc"
    assert read_text(file, "evaluation").text == "def"


@pytest.mark.parametrize(
    ("content", "line"), [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "not UTF-8")]
)
def test_a_bad_file_is_refused(tmp_path, content, line):
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    with pytest.raises(UnreadableText, match=line):
        read_text(file, "evaluation")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UnreadableText, match="No such file"):
        read_text(tmp_path / "none.txt", "evaluation")
