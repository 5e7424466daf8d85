"""What the README shows works as it is printed."""

import dataclasses
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import cli
from experiments.text import read_text

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LINES = re.findall(r"^ctr .*$", README, re.M) + re.findall(r"`(ctr [^`]*)`", README)


@pytest.mark.parametrize("line", sorted(set(LINES)))
def test_command_lines_can_be_parsed(line):
    name, rest = cli._split(shlex.split(line, comments=True)[1:])
    if name is None:
        assert rest == ["--help"]
        return
    command = (cli.COMMANDS | cli.TOOLS)[name]
    config = importlib.import_module(command.module).Config
    if name in cli.TOOLS:
        assert isinstance(cli._parse(name, command, config, rest), config)
        return
    kind = dataclasses.make_dataclass("Arguments", [("config", config), ("where", cli.Where)])
    assert cli._parse(name, command, kind, rest).config is not None


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


@pytest.mark.model
def test_the_library_example_prints_two_numbers(tmp_path):
    """First-token sinks with OATS' low-rank terms and without: most, then hardly any."""
    example = README.split("```python\n")[1].split("```")[0]
    (tmp_path / "some.txt").write_text(read_text(None, "evaluation").text[:60_000])
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    whole, without_low_rank = map(float, done.stdout.split())
    assert whole > 200
    assert without_low_rank < 50


@pytest.mark.model
def test_the_decoding_example_prints_a_text(tmp_path):
    """It goes on where the first example has loaded and read."""
    first, second = (part.split("```")[0] for part in README.split("```python\n")[1:3])
    example = first.split("def ")[0] + second.replace("max_new_tokens=64", "max_new_tokens=4")
    example += "\nassert model.get_output_embeddings().weight.is_contiguous()"
    (tmp_path / "some.txt").write_text(read_text(None, "evaluation").text[:60_000])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(done.stdout.split()) > 10
