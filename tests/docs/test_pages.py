"""The tour and the task pages run whole, in order, each in an empty folder.

`smollm2` is a tiny model there and `wiki.txt` a small text; nothing else is changed.
"""

import re
import shlex

import pytest
from shown import WHOLE, Block, blocks

ELSEWHERE = ("make ", ". .venv", "ctr decode ")
"""Set-up lines, which `test_commands` looks at; and the line that times, which takes minutes:
it is parsed, and test_speed.py asks its question."""


def steps(page) -> list[Block]:
    return [block for block in blocks(page) if block.language in ("sh", "python")]


@pytest.mark.parametrize("page", [p for p in WHOLE if steps(p)], ids=lambda p: p.stem)
def test_a_page_runs_as_it_is_printed(page, place, model_folder, ctr, capsys):
    names: dict[str, object] = {"__name__": page.stem}
    for block in steps(page):
        if block.language == "python":
            code = block.code.replace('"smollm2"', repr(str(model_folder)))
            exec(compile("\n" * block.line + code, str(page), "exec"), names)
            continue
        for line in block.code.splitlines():
            if line.startswith(ELSEWHERE):
                continue
            words = shlex.split(line, comments=True)
            assert words[0] == "ctr", line
            words = [re.sub(r"^smollm2$", str(model_folder), word) for word in words]
            code = ctr(*words[1:])
            said = capsys.readouterr()
            assert code == 0, f"{block.name}: {line}\n{said.err}"
