"""SIGKILL at any moment costs the block in flight and no byte of the result."""

import json
import os
import subprocess
import sys
from pathlib import Path

KILLS = int(os.environ.get("CTR_KILLS", "10"))


def test_a_run_that_is_killed_ends_where_it_would_have(measured):
    """`CTR_KILLS=200` kills that often."""
    command = [sys.executable, Path(__file__).with_name("killed.py"), f"--kills={KILLS}", "--steps"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:] + ran.stdout
    said = json.loads(ran.stdout)
    assert said["alike"]
    assert said["random"] | {"kills": KILLS, "wrong": 0} == said["random"]
    # run.json and four blocks, two waits for the disk each, killed before and after.
    assert said["steps"] == {"kills": 20, "wrong": 0}
    measured("kills at random times that changed a byte", f"0 of {said['random']['kills']}", "0")
