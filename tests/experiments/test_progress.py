"""Plain lines where there is no terminal, and lines that fit where there is one."""

import io
import sys

import pytest

from experiments.progress import Progress, paper


def test_a_slow_step_is_announced_at_once():
    stream = io.StringIO()
    with Progress(stream).task("load m") as advance:
        advance("dequantising once")
        assert stream.getvalue() == "load m: dequantising once\n"


def test_many_quick_steps_are_one_line_at_the_end():
    stream = io.StringIO()
    with Progress(stream).task("blocks", 3) as advance:
        for block in range(3):
            advance(f"block {block}")
    assert stream.getvalue() == "blocks: 3/3 block 2, 0 s left\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_gets_lines_that_end_between_words(monkeypatch, capsys, terminal):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    paper().print("attention receives more than others")
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    whole = ["attention receives more than others"]
    assert lines == (["attention receives", "more than others"] if terminal else whole)
