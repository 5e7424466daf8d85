"""The site is built without a warning: links and anchors lead somewhere, nothing is fetched."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from shown import ROOT

from experiments.commands import COMMANDS, TOOLS

PACKAGES = {"toy": "toy", "mech": "mech", "bridge": "bridge", "ctr_kernels": "kernels"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return out


def test_pages_ask_nothing_of_a_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        text = page.read_text()
        fetched = re.findall(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)', text)
        fetched += re.findall(
            r'<link[^>]+rel="(?:stylesheet|preconnect)[^>]+href="(https?:[^"]+)', text
        )
        assert not fetched, f"{page}: {fetched}"


def test_the_reference_shows_functions_with_their_signatures(site):
    mech = (site / "reference" / "mech.html").read_text()
    assert 'id="mech.capture.capture_blocks"' in mech
    assert "[read(block) for every block]" in mech
    assert 'id="bridge.methods.wanda.Wanda"' in (site / "reference" / "methods.html").read_text()


def test_every_public_module_is_in_the_reference():
    shown = [
        name
        for page in (ROOT / "docs" / "reference").glob("*.md")
        for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.M)
    ]
    assert len(shown) == len(set(shown))
    there = set()
    for package, folder in PACKAGES.items():
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            there.add(".".join([package, *(p for p in parts if p != "__init__")]))
    ours = {name for name in shown if name.split(".")[0] in PACKAGES}
    lost = sorted(n for n in there - ours - {"ctr_kernels"})
    assert not lost, f"run scripts/docs-reference: {lost}"
    assert ours <= there, sorted(ours - there)


def test_every_command_is_in_the_reference():
    text = (ROOT / "docs" / "reference" / "commands.md").read_text()
    for name, command in (COMMANDS | TOOLS).items():
        assert f"`ctr {name}`" in text, name
        assert command.example in text, f"{name}: run scripts/docs-reference"
