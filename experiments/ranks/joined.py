"""This process among the ranks that torch.distributed knows."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from bridge.ranks import TorchRanks

MEETING = "CTR_MEETING"
"""The environment's name for where ranks meet: a file here, torchrun's store without it."""
PATIENCE = timedelta(hours=2)
"""A rank that is gone is found at once by its closed connection; this is for a lost machine."""


@contextmanager
def joined(device: str) -> Iterator["TorchRanks"]:
    """This process as the rank that its environment names, until all are done.

    Raises RankGone where the ranks do not find each other.
    """
    import torch
    import torch.distributed as dist

    from bridge.ranks import RankGone, TorchRanks
    from mech.refusals import first_line

    meeting = os.environ.get(MEETING)
    where = f"file://{meeting}" if meeting else "env://"
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=where,
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        raise RankGone(f"the ranks do not find each other ({first_line(error)})") from error
    try:
        yield TorchRanks(device if cuda else "cpu")
    finally:
        dist.destroy_process_group()
