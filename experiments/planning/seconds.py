"""Seconds of a compression, stage by stage: amounts from shapes, times what they cost here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.planning.disk import adapted_terms, disk
from experiments.planning.memory import Text, full
from experiments.planning.rates import Cost, Rates, elements, passed
from experiments.planning.shapes import Linear, Shape
from experiments.planning.work import work
from experiments.settings import Sizes


class Seconds(NamedTuple):
    """Processor seconds of each stage, of the rank that takes longest."""

    stages: Mapping[str, float]

    @property
    def total(self) -> float:
        """All stages: they follow each other."""
        return sum(self.stages.values())


def seconds(
    shape: Shape,
    name: str,
    method: Any,
    text: Text,
    sizes: Sizes,
    rates: Rates,
    form: str,
    *,
    ranks: int = 1,
    on_disk: bool = False,
) -> Seconds:
    """What `ctr compress` takes: start, evaluation before and after, calibration, method, saving.

    On ranks: calibration is this rank's part, matrices are dealt out, largest first to the least
    loaded, and evaluation windows are shared.
    """
    cost = rates.methods[name]
    mine = (text.sequences, text.context)
    once = _pass(shape, rates, mine)
    # Of a model on disk one batch is recorded for real (bridge.carried), of others all.
    recorded = text.at_once / text.tokens if on_disk else 1
    after = _operators(shape, method, rates, cost, text.tokens, -(-text.tokens // text.at_once))
    dense = _evaluated(shape, rates, sizes) / ranks
    calls = sizes.windows + -(-sizes.sequences // 4)
    read = sizes.windows * sizes.context + sizes.sequences * sizes.seq
    also = _operators(shape, method, rates, cost, read, calls) / ranks
    times = [_replaced(one, name, method, cost) for one in shape.linears.values()]
    written = disk(shape, method).of(form) or 0
    passes = _disk_passes(on_disk)
    stages = {
        "start": rates.start + cost.start,
        "load": rates.hashed * shape.stored * shape.numbers,
        "evaluate": dense,
        "calibrate": (2 + recorded) * once + after + _watched(shape, method, rates, text.tokens),
        "method": _dealt(times, ranks),
        "evaluate again": dense + also,
        # Tensors before and after, and the files, are hashed; what is saved is written once.
        "save": rates.hashed * (2 * shape.weights + written) + rates.written * written,
    }
    if on_disk:
        stages["read blocks"] = passes * rates.hashed * shape.stored * shape.numbers
    return Seconds(stages)


def _disk_passes(on_disk: bool) -> int:
    """How often every block is read: when calls are recorded and when it is compressed."""
    return 2 if on_disk else 0


def _dealt(times: list[float], ranks: int) -> float:
    loads = [0.0] * ranks
    for one in sorted(times, reverse=True):
        loads[loads.index(min(loads))] += one
    return max(loads)


def _replaced(linear: Linear, name: str, method: Any, cost: Cost) -> float:
    operations = sum(work(name, method, *part) for part in linear.parts)
    return cost.entry * linear.numbers + cost.operation * operations


def _pass(shape: Shape, rates: Rates, size: tuple[int, int]) -> float:
    numbers = sum(one.numbers * one.share for one in shape.linears.values())
    written = attending = 0.0
    for block in shape.blocks:
        widest = max((one.share * one.d_out for one in block.values()), default=0)
        written += elements(shape.hidden, int(widest))
        attending += shape.heads * shape.d_head
    amounts = passed(size, numbers, written, attending)
    costs = (rates.operation, rates.element, rates.attended)
    return sum(a * c for a, c in zip(amounts, costs, strict=True))


def _operators(
    shape: Shape, method: Any, rates: Rates, cost: Cost, tokens: int, calls: int
) -> float:
    """What operators add to passes of the dense model: factors, and unpacking at every call."""
    factors = sum(2.0 * adapted_terms(one, method) * one.share for one in shape.linears.values())
    numbers = sum(one.numbers for one in shape.linears.values())
    return tokens * factors * rates.operation + calls * numbers * cost.call


def _watched(shape: Shape, method: Any, rates: Rates, tokens: int) -> float:
    total = 0.0
    for block in shape.blocks:
        for share, d in {one.reads: (one.share, one.d_in) for one in block.values()}.values():
            total += rates.squared * tokens * share * d
            if full(method):
                total += rates.moment * 2.0 * tokens * share * d * d
    return total


def _evaluated(shape: Shape, rates: Rates, sizes: Sizes) -> float:
    tokens = sizes.windows * sizes.context
    losses = _pass(shape, rates, (sizes.windows, sizes.context))
    head = 2.0 * tokens * shape.hidden * shape.vocabulary * rates.operation
    scored = tokens * shape.vocabulary * rates.scored
    sinks = _pass(shape, rates, (sizes.sequences, sizes.seq))
    looked = len(shape.blocks) * shape.heads * sizes.sequences * sizes.seq**2 * rates.looked
    return losses + head + scored + sinks + looked
