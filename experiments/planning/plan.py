"""Memory, disk and time of one compression, before it starts."""

from typing import Any, NamedTuple

from experiments.planning.disk import Disk, disk, stored
from experiments.planning.memory import Memory, full, memory, text_of
from experiments.planning.rates import Rates
from experiments.planning.seconds import Seconds, seconds
from experiments.planning.shapes import Shape
from experiments.settings import BadOption, Sizes


class Plan(NamedTuple):
    """Of one method, on `ranks` processes. memory: of each. seconds: None without rates.

    sent: bytes that leave a rank: statistics, and the operators that it made.
    """

    method: str
    ranks: int
    on_disk: bool
    memory: Memory
    disk: Disk
    seconds: Seconds | None
    sent: int


def plan(
    shape: Shape,
    name: str,
    method: Any,
    sizes: Sizes,
    rates: Rates | None,
    base: int,
    form: str = "dense",
    *,
    ranks: int = 1,
    on_disk: bool = False,
) -> Plan:
    """What `ctr compress` will hold, write and take.

    `base`: bytes of an interpreter with the libraries. Time is left out where `rates` has none of
    the method.

    Raises:
        BadOption: more ranks than batches, a form that the method has not.
        BadInput: what the method spends is not known beforehand.
    """
    batches = -(-sizes.calibration // 4)
    if ranks > batches:
        raise BadOption(
            f"--ranks {ranks}: {sizes.calibration} calibration sequences are {batches} batches; "
            "give at most as many ranks"
        )
    text = text_of(sizes, ranks)
    on = disk(shape, method)
    if on.of(form) is None:
        raise BadOption(f"--form {form}: {name} leaves no low-rank term; choose dense or packed")
    known = rates is not None and name in rates.methods
    return Plan(
        name,
        ranks,
        on_disk,
        memory(shape, name, method, text, base, form, on_disk=on_disk),
        on,
        seconds(shape, name, method, text, sizes, rates, form, ranks=ranks, on_disk=on_disk)
        if known and rates is not None
        else None,
        sent(shape, method, ranks),
    )


def sent(shape: Shape, method: Any, ranks: int) -> int:
    """Bytes that leave one of n ranks: 2 (n-1)/n of all statistics (a ring), its 1/n of the
    operators to n-1 others."""
    if ranks == 1:
        return 0
    states = 0
    for block in shape.blocks:
        for d in {one.reads: one.d_in for one in block.values()}.values():
            # Errors are in the diagonal, which is summed beside what the method asks for.
            states += 8 * (d + (d * d if full(method) else d))
    operators = sum(stored(one, method) for one in shape.linears.values())
    return 2 * states * (ranks - 1) // ranks + operators * (ranks - 1) // ranks
