"""Two raylets, one killed in the middle: the same bytes as a serial sweep."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.settings import BadOption

SCRIPT = Path(__file__).parent / "raylets.py"


def test_a_node_that_is_killed_loses_nothing():
    ask = [sys.executable, str(SCRIPT), "--runs", "8", "--nothing", "0.4"]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["rows"] == 8
    assert told["same"] == {"rows.csv": True, "rows.json": True}


def test_a_cluster_that_is_not_there_is_one_line():
    code = (
        "from experiments.settings import BadOption\n"
        "from experiments.sweeping.rayed import Rayed\n"
        "try: Rayed('127.0.0.1:1', 1, 0, 0)\n"
        "except BadOption as error: print(error)\n"
    )
    given = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(given, capture_output=True, text=True, timeout=120)
    assert "--address 127.0.0.1:1: no Ray cluster answers there" in done.stdout, done.stderr


def test_without_ray_the_line_says_what_to_install(monkeypatch):
    from experiments.sweeping.rayed import Rayed

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadOption, match=r"catch-tag-release\[ray\]"):
        Rayed("local", 1, 0, 0)
