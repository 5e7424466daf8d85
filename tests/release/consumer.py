"""A file of a user's, as pyright reads it beside an installed wheel; never run."""
# The tests of the project itself leave it out: one of its lines is wrong on purpose.

from pathlib import Path

import torch
from torch import nn

from bridge.compress import compress
from bridge.methods import OATS
from ctr_kernels.hard_threshold import hard_threshold
from experiments.report import Section
from mech.load import load
from toy.errors import Refused


def smaller(model: nn.Module, ids: torch.Tensor) -> None:
    reveal_type(compress(model, OATS(compression=0.5), [ids]))
    reveal_type(hard_threshold)
    reveal_type(Refused("why"))
    reveal_type(Section("heading", ["text"], []))
    load(Path("model"), device=["cpu"])  # LINE OF THE ERROR: a list is no device
