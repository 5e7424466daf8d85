"""What chosen linears of the dense model read, measured batch by batch: nothing else is kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

from bridge.decode.reading import read
from bridge.sites import block_of, linears
from experiments.progress import Progress

if TYPE_CHECKING:
    from experiments.parts.work import Work

Measure = Callable[[str, Float[Tensor, "tokens d_in"]], Any]


def chosen(model: nn.Module, every: int, select: str = "*") -> dict[str, nn.Linear]:
    """The matching linears of one block of `every`, from the first one that has any.

    Raises:
        BadInput: none matches.
    """
    found = linears(model, select)
    first = block_of(next(iter(found)))
    return {name: m for name, m in found.items() if (block_of(name) - first) % every == 0}


def measured(
    work: "Work",
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    names: Sequence[str],
    measure: Measure,
    progress: Progress,
) -> dict[str, list[Any]]:
    """By name, `measure(name, x)` of every batch, x what the linear reads, float32 on the CPU."""
    wanted = set(names)
    found: dict[str, list[Any]] = {name: [] for name in names}

    def take(name: str, x: Tensor, _: object) -> None:
        if name in wanted:
            found[name].append(measure(name, x.detach().float().cpu()))

    with progress.task("what linears read", len(batches)) as advance:
        read(work.loaded.model, batches, take, share=False, advance=advance)
    return found


def mean(found: Mapping[str, Float[np.ndarray, "batch ..."]]) -> Float[np.ndarray, "batch ..."]:
    """Over linears, of every batch."""
    return np.mean(list(found.values()), axis=0)
