"""Real processes: four ranks make what one makes, and one that is killed costs a block."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import killed
import pytest
from ranks_compared import compared
from safetensors.torch import load_file

HERE = Path(__file__).parent
SIZES = {"layers": 2, "batches": 4}


class Ran(NamedTuple):
    """What `forked.py` left and said: rank 0's line, and how all processes ended."""

    folder: Path
    ranks: list[dict[str, Any]]
    ended: dict[str, Any]


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Ran:
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[2])}
    command = [sys.executable, HERE / "forked.py", folder, json.dumps(SIZES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    _, four, ended = (json.loads(line) for line in done.stdout.splitlines())
    found = Ran(folder, four["ranks"], ended)
    assert found.ended["one"] == [0], done.stderr[-2000:]
    assert found.ended["four"] == [0] * 4, done.stderr[-2000:]
    return found


def test_four_ranks_make_what_one_makes(ran, measured):
    """Seven methods: every mask and code the same, every factor within 1e-6 relative."""
    found = compared(ran.folder / "one", ran.folder / "four")
    assert len(found) == 7
    assert all(each.tensors > 14 and each.masks == 0 for each in found.values()), found
    worst = max(each.factors for each in found.values())
    assert worst < 1e-6, found
    # 7 methods, 2 blocks of 7 linears, each replaced by one rank.
    assert sum(rank["linears"] for rank in ran.ranks) == 7 * 2 * 7
    assert all(0 < rank["waiting"] < rank["seconds"] and rank["bytes"] > 0 for rank in ran.ranks)
    measured("1 against 4 ranks: factors, relative", f"{worst:.1e}", "below 1e-6, masks equal")


def test_a_rank_that_is_killed_costs_a_block(ran):
    """The ranks go on from the shards, leave what was kept as it was, and end with the bytes of
    ranks that nobody killed. A shard also says how long each linear took: tensors are compared.
    """
    ended = ran.ended
    assert (ended["whole"], ended["killed"], ended["again"]) == ([0, 0], [3, -9], [0, 0])
    kept = ended["killed keeps"]
    assert 1 <= len(kept) < SIZES["layers"] == len(ended["again keeps"])
    assert ended["again keeps"][: len(kept)] == kept
    for name, _ in ended["whole keeps"]:
        whole, again = (load_file(ran.folder / of / name) for of in ("whole", "killed"))
        assert whole.keys() == again.keys()
        assert all(whole[key].numpy().tobytes() == again[key].numpy().tobytes() for key in whole)


def test_a_rank_that_is_killed_is_one_line_and_nothing_is_left(tmp_path, measured):
    """Of the command; `killed.py` gives it again and compares the checkpoints too."""
    killed.tiny(tmp_path, 6)
    said = killed.killed(tmp_path, 2)
    refusal = said["said"][-1]
    assert refusal.startswith("ctr: error: rank 1 of 2 was killed (SIGKILL")
    assert [line for line in said["said"] if "error" in line.lower()] == [refusal]
    assert (said["exit"], said["processes left"], said["half written"]) == (2, 0, False)
    assert 1 <= said["blocks kept"] < 6
    seconds = said["seconds until it ended"]
    assert seconds < 30
    measured("seconds from the death of a rank to the end", seconds, "below 30")
