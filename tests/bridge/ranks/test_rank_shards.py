"""What rank 0 refuses reaches every rank, so that none waits for one that has gone."""

from typing import Any

import pytest

from bridge.rank_shards import RankShards
from bridge.ranks import TorchRanks
from bridge.shards import Shards
from mech.errors import BadInput


class Wire(TorchRanks):
    """One rank's end: what rank 0 tells is kept, and is what another rank hears."""

    def __init__(self, rank: int, sent: list) -> None:
        self.rank, self.sent = rank, sent

    def told(self, what: Any, source: int) -> Any:
        assert source == 0
        if self.rank == source:
            self.sent.append(what)
        return self.sent[-1]


class Full(Shards):
    """A folder that cannot be written."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, layer: int, done: Any) -> None:
        raise self.error


@pytest.mark.parametrize("error", [BadInput("block 3 is of another run"), OSError(28, "disk full")])
def test_all_ranks_refuse_what_rank_0_refuses(error):
    sent: list = []
    first, other = (RankShards(Full(error), Wire(rank, sent)) for rank in (0, 1))
    with pytest.raises(type(error), match=str(error.args[-1])):
        first.write(3, {})
    assert len(sent) == 1
    with pytest.raises(BadInput, match=str(error.args[-1])):
        other.write(3, {})
