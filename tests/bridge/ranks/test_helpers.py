"""A question that fails on rank 0 leaves no process and no trace in the environment."""

import os
import signal
from pathlib import Path

import killed
import pytest

from experiments.progress import Progress
from experiments.ranks.helpers import led
from experiments.ranks.joined import MEETING

MODULE = """
import dataclasses, time
from experiments.ranks.joined import joined

@dataclasses.dataclass(frozen=True)
class Config:
    seconds: int = 600

def run(config, progress):
    with joined("cpu"):
        time.sleep(config.seconds)
"""


def test_helpers_end_with_a_question_that_fails(tmp_path, monkeypatch):
    (tmp_path / "waiting.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    import waiting  # type: ignore[import-not-found]

    with (
        Path(os.devnull).open("w") as nowhere,
        pytest.raises(ZeroDivisionError),
        led("waiting", waiting.Config(), 2, "cpu", Progress(nowhere)) as ranks,
    ):
        there = killed.helpers(os.getpid())
        assert (ranks.rank, ranks.size, len(there)) == (0, 2, 1)
        assert os.environ["WORLD_SIZE"] == "2"
        _ = 1 / 0
    left = killed.helpers(os.getpid())
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left
    assert not {"RANK", "WORLD_SIZE", MEETING} & os.environ.keys()
