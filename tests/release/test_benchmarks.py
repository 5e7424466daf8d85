"""The benchmarks that the documents name are the ones that the script runs."""

import dataclasses
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from experiments import cli

ROOT = Path(__file__).parent.parent.parent
SCRIPT = (ROOT / "scripts" / "bench").read_text()
PAGE = (ROOT / "docs" / "benchmarks.md").read_text()
LINES = re.findall(r"^ *\$ctr (.*)$", SCRIPT, re.M)


def split(size: str) -> list[str]:
    """The script's lines of one size, without where they write."""
    part = SCRIPT.split(f"\n{size})")[1].split(";;")[0]
    found = re.findall(r"\$ctr (.*)", part)
    return [line.split(" --out ")[0] for line in found]


@pytest.mark.parametrize("line", LINES)
def test_every_line_can_be_parsed(line):
    name, rest = cli._split(shlex.split(line.replace("$out", "out")))
    assert name is not None, line
    command = cli.COMMANDS[name]
    config = importlib.import_module(command.module).Config
    kind = dataclasses.make_dataclass("Arguments", [("config", config), ("where", cli.Where)])
    parsed = cli._parse(name, command, kind, rest)
    assert parsed.where.replace  # a second run of the script goes through


def test_the_page_shows_what_the_script_runs():
    shown = re.findall(r"^\| .*?`ctr ([^`]*)`", PAGE, re.M)
    assert shown == split("full")
    assert len(split("small")) == len(shown)


def test_an_unknown_size_is_one_line():
    done = subprocess.run(
        ["sh", str(ROOT / "scripts" / "bench"), "huge"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "bench: huge is neither small nor full\n"
