"""The `ctr` command in tests: smallest sizes, and what answers and refusals leave behind."""

import json
import subprocess
import sys
from pathlib import Path

CTR = Path(sys.executable).parent / "ctr"
SMALL = ("--windows", 3, "--context", 32, "--sequences", 2, "--seq", 64, "--calibration", 2)


def answered(done: subprocess.CompletedProcess[str], out: Path) -> dict:
    """The stored result of a run that must have gone well."""
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    page = (out / "report.html").read_text()
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    pictures = sorted(p.name for p in out.glob("pictures/*"))
    assert len([p for p in pictures if p.endswith(".svg")]) * 2 == len(pictures)
    return result


def expect_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line that names what is wrong, exit code 2, and no folder left behind."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("ctr: error:")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]
