"""The most memory that a compression holds, stage by stage, from shapes and a method alone."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from bridge.planned import spending
from bridge.statistics import SecondMoment
from experiments.planning.disk import BITS, adapted, adapted_terms, stored
from experiments.planning.shapes import WIDTH, Linear, Shape
from experiments.planning.workspace import workspace
from experiments.settings import Sizes

WIDE = 8
"""Bytes of a number of a statistic."""
GIVEN_BACK = 2**25
"""Bytes from which glibc gives an array back to the system, when it has seen such arrays."""
AT_ONCE = 4
"""Sequences in one pass, as `experiments.measure` takes them."""


class Memory(NamedTuple):
    """Bytes resident at the most while each stage runs; `base`: of interpreter and libraries."""

    base: int
    stages: Mapping[str, int]

    @property
    def peak(self) -> int:
        """The largest stage, and the base."""
        return self.base + max(self.stages.values())


class Text(NamedTuple):
    """How much is read: calibration sequences of this process, tokens each, tokens of a pass."""

    sequences: int
    context: int
    looked: int

    @property
    def tokens(self) -> int:
        """Of the calibration text."""
        return self.sequences * self.context

    @property
    def at_once(self) -> int:
        """Tokens of one pass of a block."""
        return min(self.sequences, AT_ONCE) * self.context


def text_of(sizes: Sizes, ranks: int = 1) -> Text:
    """What one rank of `ranks` reads, the one with the most."""
    batches = -(-sizes.calibration // AT_ONCE)
    mine = min(-(-batches // ranks) * AT_ONCE, sizes.calibration)
    return Text(mine, sizes.context, sizes.seq)


def memory(
    shape: Shape, name: str, method: Any, text: Text, base: int, form: str, *, on_disk: bool
) -> Memory:
    """Bytes of weights, statistics, workspace, activations and operators, stage by stage.

    Resident memory, as the run store records it: files that are mapped count while they are
    mapped. In memory: the dense model stays until the end, for `restore`, beside what is made of
    it; saving folds every matrix once more and loads the result beside all of that. On disk: one
    block of each.
    """
    blocks = [block for block in shape.blocks if block]
    most = max(_block_bytes(block) for block in shape.blocks)
    weights = most if on_disk else shape.weights
    pass_ = _pass(shape, text.at_once)
    stream = WIDTH * text.tokens * shape.hidden
    states = max(_states(block, method) for block in blocks)
    largest = max(workspace(name, *part) for one in shape.linears.values() for part in one.parts)
    made = [sum(held(one, method) for one in block.values()) for block in blocks]
    operators = max(made) if on_disk else sum(made)
    update = max(_update(one, method, text.at_once) for one in shape.linears.values())
    head = WIDTH * shape.vocabulary * shape.hidden if on_disk else 0
    stages = {
        # Where the files hold another format they are mapped beside what is made of them.
        "load": weights + (0 if shape.stored == WIDTH or on_disk else shape.stored * shape.numbers),
        "evaluate": weights + head + _logits(shape, text.context) + _pass(shape, text.context),
        "calibrate": weights + operators + stream + 2 * states + update + pass_,
        "replace": weights + operators + stream + states + largest,
        "carry": weights + operators + 2 * stream + pass_,
    }
    kept = _kept(shape, max(stages.values()) - weights - operators)
    stages["save"] = kept + _save(shape, method, operators, form, on_disk=on_disk)
    return Memory(base, stages)


def _kept(shape: Shape, freed: int) -> int:
    """Of what was freed, what glibc keeps: arrays below 32 MiB lie in its heap, between those
    that stay."""
    largest = max(rows * columns for one in shape.linears.values() for rows, columns in one.parts)
    return freed if WIDE * largest < GIVEN_BACK else 0


def _save(shape: Shape, method: Any, operators: int, form: str, *, on_disk: bool) -> int:
    """Operators folded, or parted, and the model loaded again beside them."""
    linears = shape.linears.values()
    if on_disk:  # one tensor at a time
        return max(2 * WIDTH * max(one.numbers for one in linears), operators)
    if form == "packed":
        # Packed copies to write; then a second model, of operators, from a file that is mapped.
        packed = sum(stored(one, method) for one in linears)
        outside = shape.weights - sum(WIDTH * one.numbers for one in linears)
        return shape.weights + operators + packed + max(outside, operators + outside)
    folded = sum(WIDTH * one.numbers for one in linears if _folds(one, method))
    if form == "base+lora":
        folded = sum(WIDTH * (one.numbers + adapted(one, method)) for one in linears)
    return shape.weights + operators + folded + shape.weights


def _folds(linear: Linear, method: Any) -> bool:
    """Whether the matrix in force is another one than the matrix that is held."""
    return len(linear.parts) > 1 or not _sparse_alone(method, linear)


def _sparse_alone(method: Any, linear: Linear) -> bool:
    said = spending(method, *linear.parts[0], BITS)
    return not said.inner and _simulated(method)


def _simulated(method: Any) -> bool:
    """Whether a sparse term is held, which is a dense matrix with zeros here."""
    return not hasattr(method, "quantizer") and not type(method).__name__.endswith("LowRank")


def held(linear: Linear, method: Any) -> int:
    """Bytes of an operator in memory: a sparse term is simulated by a dense matrix."""
    if not _simulated(method):
        return stored(linear, method)
    return WIDTH * (linear.numbers + adapted_terms(linear, method))


def _states(block: Mapping[str, Linear], method: Any) -> int:
    """Of what the linears of a block read, one state a tensor that is read."""
    sizes = {one.reads: one.d_in for one in block.values()}
    return sum(WIDE * (d * d if full(method) else d) for d in sizes.values())


def full(method: Any) -> bool:
    """Whether the method asks for the whole second moment."""
    return isinstance(method.statistic.init(1), SecondMoment)


def _update(linear: Linear, method: Any, tokens: int) -> int:
    """Inputs in float64, and their squares."""
    return 2 * WIDE * int(tokens * linear.share) * linear.d_in


def _pass(shape: Shape, tokens: int) -> int:
    """Activations of one block: the stream twice, and what the widest linears leave together."""
    widest = 0
    for block in shape.blocks:
        by_input: dict[int, int] = {}
        for one in block.values():
            by_input[one.reads] = by_input.get(one.reads, 0) + int(one.share * one.d_out)
        widest = max([widest, *by_input.values()])
    return WIDTH * tokens * (3 * shape.hidden + 3 * widest // 2)


def _logits(shape: Shape, tokens: int) -> int:
    """Of one window, and of a chunk of it in the loss."""
    return WIDTH * shape.vocabulary * (tokens + 2 * min(tokens, 128))


def _block_bytes(block: Mapping[str, Linear]) -> int:
    return sum(WIDTH * (one.numbers + (one.d_out if one.bias else 0)) for one in block.values())
