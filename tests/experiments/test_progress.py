"""Plain lines where there is no terminal."""

import io

from experiments.progress import Progress


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
