"""Running out of memory, told from other errors, and answered with less at once."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from mech.errors import BadInput
from mech.refusals import first_line

R = TypeVar("R")

# PyTorch's allocator on the CPU, and those of its libraries, raise plain RuntimeErrors.
_SAYINGS = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory, on the CPU or on a device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in said for words in _SAYINGS)


def by_halves(
    run: Callable[[Int[Tensor, "_batch _seq"]], R], tokens: Int[Tensor, "batch seq"], what: str
) -> list[R]:
    """[run(part)] over parts of a batch, in order: the whole of it, or halves where memory ends.

    A part that does not fit is split once more, down to one sequence; what it had made is gone.
    Raises BadInput, one line naming `what`, where one sequence does not fit.
    """
    try:
        return [run(tokens)]
    except Exception as error:
        if not out_of_memory(error):
            raise
        said = first_line(error)
    # Outside of the clause: what the pass had in memory is held by the error's frames.
    if len(tokens) == 1:
        raise no_room(what, tokens.shape[1], said)
    return [found for half in halves(tokens) for found in by_halves(run, half, what)]


def halves(tokens: Tensor) -> Sequence[Tensor]:
    """Two parts of a batch of two or more sequences, as even as they can be."""
    return tokens.split(-(-len(tokens) // 2))


def no_room(what: str, seq: int, said: str) -> BadInput:
    """One sequence does not fit: nothing smaller can be tried."""
    return BadInput(
        f"{what}: one sequence of {seq} tokens does not fit into memory ({said}): give shorter "
        "sequences, or leave the weights on disk"
    )
