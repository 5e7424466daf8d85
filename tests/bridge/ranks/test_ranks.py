"""Real processes: four ranks make what one makes, and one that is killed costs a block."""

import json
import os
import subprocess
import sys
from pathlib import Path

from ranks_compared import compared

HERE = Path(__file__).parent
SMALL = json.dumps({"layers": 2, "batches": 4})


def started(out: Path, **more: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[2])} | more
    return subprocess.Popen(
        [sys.executable, HERE / "worker.py", out, SMALL],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_four_ranks_make_what_one_makes(tmp_path, measured):
    """Seven methods: every mask and code the same, every factor within 1e-6 relative."""
    meeting = {"WORLD_SIZE": "4", "CTR_MEETING": str(tmp_path / "meeting")}
    meeting["GLOO_SOCKET_IFNAME"] = "lo"
    runs = [started(tmp_path / "one")]
    runs += [started(tmp_path / "four", RANK=str(rank), **meeting) for rank in range(4)]
    ended = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0] * 5, [err[-500:] for _, err in ended]
    found = compared(tmp_path / "one", tmp_path / "four")
    assert len(found) == 7
    assert all(each.tensors > 14 and each.masks == 0 for each in found.values()), found
    assert max(each.factors for each in found.values()) < 1e-6, found
    spent = json.loads(ended[1][0])["ranks"]
    # 7 methods, 2 blocks of 7 linears, each replaced by one rank.
    assert sum(rank["linears"] for rank in spent) == 7 * 2 * 7
    assert all(0 < rank["waiting"] < rank["seconds"] and rank["bytes"] > 0 for rank in spent)
    worst = max(each.factors for each in found.values())
    measured("1 against 4 ranks: factors, relative", f"{worst:.1e}", "below 1e-6, masks equal")


def test_a_rank_that_is_killed_is_one_line_and_costs_a_block(measured):
    """`killed.py --ranks 4 --blocks 6` is the longer one."""
    command = [sys.executable, HERE / "killed.py", "--ranks=2", "--blocks=2"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]
    said = json.loads(ran.stdout)
    refusal = said["said"][-1]
    assert refusal.startswith("ctr: error: rank 1 of 2 was killed (SIGKILL")
    assert [line for line in said["said"] if "error" in line.lower()] == [refusal]
    assert 1 <= said["blocks kept"] <= 2
    assert len(said["ranks said"]) == 2
    seconds = said["seconds until it ended"]
    measured("seconds from the death of a rank to the end", seconds, "below 30")
