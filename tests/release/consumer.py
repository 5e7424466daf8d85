"""A file of a user's, as pyright reads it beside an installed wheel; never run."""
# The project's own pyright leaves it out: one of its lines is wrong on purpose.
# It asks for little of torch, whose types take pyright long.

from typing import reveal_type

from bridge.budget import Cost
from ctr_kernels.op import Unsupported
from experiments.command import Command
from mech.probes.sinks import SinkCount
from toy.errors import Refused


def total(costs: list[Cost], found: SinkCount) -> None:
    reveal_type(costs[0].bits)
    reveal_type(found.first)
    reveal_type(Unsupported("why"))
    reveal_type(Command("module", "asks", "example").asks)
    reveal_type(Refused("why"))
    Command("module", "asks", 3)  # LINE OF THE ERROR: an example is a text
