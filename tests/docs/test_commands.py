"""Every command that a page shows is one, with options that it has; links lead somewhere."""

import dataclasses
import importlib
import importlib.util
import re
import shlex

import pytest
from shown import DOCS, PAGES, ROOT, commands, illustrates, shell

from experiments import cli, presets

LINES = sorted({line for page in PAGES for line in commands(page)})
PARSED = [line for line in LINES if not illustrates(line)]


@pytest.mark.parametrize("line", PARSED)
def test_a_command_line_can_be_parsed(line):
    name, rest = cli._split(shlex.split(line, comments=True)[1:])
    if name is None:
        assert rest in ([], ["--help"], ["--version"]), f"no such command: {line}"
        return
    command = (cli.COMMANDS | cli.TOOLS)[name]
    module = importlib.import_module(command.module)
    if name in cli.TOOLS:
        assert isinstance(cli._parse(name, command, module.Config, rest), module.Config)
        return
    kind = dataclasses.make_dataclass(
        "Arguments", [("config", module.Config), ("where", cli.Where)]
    )
    default = None
    if found := getattr(module, "PRESETS", None):
        config, rest = presets.chosen(name, found, rest)
        default = kind(config, cli.Where())
    assert cli._parse(name, command, kind, rest, default).config is not None


@pytest.mark.parametrize("line", [line for line in LINES if illustrates(line)])
def test_a_line_that_is_not_whole_names_a_command_that_is_there(line):
    group, *rest = line.split()[1:]
    if group in ("…", "...", "COMMAND") or (
        group in cli.GROUPS and (not rest or illustrates(rest[0]))
    ):
        return
    assert cli._split([group, *rest])[0] is not None, f"no such command: {line}"


def test_most_lines_are_parsed(measured):
    measured("command lines in the pages", f"{len(PARSED)} parsed of {len(LINES)}", "most")
    assert len(PARSED) > 100
    assert len(PARSED) > 0.6 * len(LINES)


def test_shell_blocks_have_nothing_that_nobody_looks_at():
    """ctr and `python -m` are run or parsed; targets of make and scripts have to be there."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    known = ("pip ", ". .venv/bin/activate", "git ", "source ", "export ", "torchrun ", "sbatch ")
    known += ("ray ", "cd ", "kill ", "nice ", ".venv/bin/")
    for page in PAGES:
        for line in shell(page):
            words = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line.strip()).split()
            if words[0] == "make":
                assert {w for w in words[1:2] if "=" not in w} <= targets, line
            elif words[0] in ("sh", "bash"):
                assert (ROOT / words[1]).exists(), line
            elif words[0] == "python" and words[1] == "-m":
                assert importlib.util.find_spec(words[2]), line
            elif words[0] == "python" and words[1] != "-c":
                assert (ROOT / words[1]).exists(), line
            else:
                assert words[0] in ("ctr", "python") or line.strip().startswith(known), line


def test_every_page_is_in_the_contents():
    contents = (ROOT / "mkdocs.yml").read_text()
    lost = [p for p in DOCS.rglob("*.md") if f" {p.relative_to(DOCS)}\n" not in contents]
    assert not lost, f"add to nav in mkdocs.yml: {[str(p.relative_to(DOCS)) for p in lost]}"
