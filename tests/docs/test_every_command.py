"""Of each page one command line is run as `every_command.py` runs all of them: see `quick.json`."""

import json
import os
import subprocess
import sys

import pytest
from every_command import QUICK, cut, lines
from shown import PAGES, ROOT

CHOSEN: dict[str, str] = json.loads(QUICK.read_text())


def test_the_chosen_lines_still_stand_on_their_pages():
    said = {str(p.relative_to(ROOT)): {line.text for line in lines(p)} for p in PAGES}
    gone = [f"{page}: {line}" for page, line in CHOSEN.items() if line not in said[page]]
    assert not gone, f"run tests/docs/every_command.py --write: {gone}"


def test_the_chosen_lines_run(measured, tmp_path):
    rows = tmp_path / "rows.jsonl"
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "docs" / "every_command.py", "--quick", "--rows", rows],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    ran = [json.loads(row) for row in rows.read_text().splitlines()]
    assert len(ran) == len(CHOSEN) > 10
    assert all(row["code"] == 0 for row in ran)
    measured("pages with a line that was run", len(ran), "every line: every_command.py")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ctr probe MODEL --text FILE", "ctr probe smollm2 --text wiki.txt"),
        ("ctr experiment chain --preset laptop", "ctr experiment chain --preset smallest"),
        ("OMP_NUM_THREADS=2 ctr runs --last 3", "ctr runs --last 3"),
    ],
)
def test_a_line_is_changed_by_the_table_only(line, wanted):
    words = cut(line)
    assert words[: len(wanted.split())] == wanted.split()
    options = words[len(wanted.split()) :]
    assert options == ([] if "probe" not in line else ["--seq", "64", "--sequences", "8"])
