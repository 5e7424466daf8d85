"""Examples in docstrings print what stands below them."""

import doctest
import importlib
from pathlib import Path

import pytest
from shown import ROOT

FOLDERS = {"toy": "toy", "mech": "mech", "bridge": "bridge", "kernels": "ctr_kernels"}
FOLDERS |= {"experiments": "experiments"}


def module_name(file: Path) -> str:
    folder, *rest = file.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[folder], *(part for part in rest if part != "__init__")])


FILES = sorted(
    file
    for folder in FOLDERS
    for file in (ROOT / folder).rglob("*.py")
    if "\n    >>> " in (text := file.read_text()) or "\n        >>> " in text
)


@pytest.mark.parametrize("name", [module_name(file) for file in FILES])
def test_examples_print_what_they_say(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


def test_the_most_used_functions_have_examples(measured):
    finder = doctest.DocTestFinder()
    examples = [
        test.name
        for file in FILES
        for test in finder.find(importlib.import_module(module_name(file)))
        if test.examples
    ]
    measured("functions and classes with examples", len(examples), "at least 25")
    assert len(examples) >= 25
