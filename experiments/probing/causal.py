"""Every intervention on tags, on text: what it costs, and what as large a change costs elsewhere.

Layers, heads and the rule for sinks come from the even sequences; the odd ones are measured, each
against itself without edits. Late sinks are tokens of the odd sequence that are sinks in at least
PLACES of the (layer, head) places of the early layers, themselves those with more than twice the
mean layer's later sinks; late layers are all that follow.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from experiments.intervals import Interval, interval
from experiments.probing.effects_of_edits import Edits, Outcome, Watched, outcome
from experiments.probing.released import Look
from experiments.progress import Advance
from mech.causal import elsewhere
from mech.edits import (
    Block,
    Edit,
    Mean,
    Project,
    RandomDirection,
    Remove,
    Scale,
    Swap,
    Transplant,
)
from mech.errors import BadInput
from mech.probes import sinks
from mech.reach import Sinks, Where

PLACES = 0.1
RELEASE = 3  # blocks between a head and the stream in which its tag is looked for


class Plan(NamedTuple):
    """Which layers and which tokens of the judged sequences are meant."""

    early: tuple[int, ...]
    after: tuple[int, ...]
    late: Sinks
    first: Sinks
    both: Sinks
    random: Sinks
    random_both: Sinks


class Row(NamedTuple):
    """One edit; every interval is of paired differences with the untouched model, by sequence.

    None for what cannot change; all None where a head has no room for random directions.
    """

    column: str
    edit: str
    control: bool
    nll: Interval | None
    mass: Interval | None
    ari: Interval | None
    release: Interval | None


def plan(
    even: Float[np.ndarray, "layer sequence head key"],
    odd: Float[np.ndarray, "layer judged head key"],
    epsilon: float,
    seed: int,
) -> Plan:
    """The rule of the file's first lines; nothing but scores is looked at."""
    seq = even.shape[-1]
    guarded = sinks.guarded(seq)
    count = sinks.sinks(even, epsilon)[..., guarded].sum(axis=(1, 2, 3))
    early = np.flatnonzero(count > 2 * count.mean())
    late = late_sinks(odd[early], epsilon)
    first = ((0,),) * len(late)
    both = tuple((0, *row) for row in late)
    return Plan(
        early=tuple(early.tolist()),
        after=tuple(range(int(early.max(initial=-1)) + 1, len(even))),
        late=late,
        first=first,
        both=both,
        random=elsewhere(late, seq, avoid=first, seed=seed),
        random_both=elsewhere(both, seq, avoid=first, seed=seed + 1),
    )


def late_sinks(scores: Float[np.ndarray, "layer sequence head key"], epsilon: float) -> Sinks:
    """Guarded later tokens that are sinks in at least PLACES of these layers' heads."""
    share = sinks.sinks(scores, epsilon).mean(axis=(0, 2)) * sinks.guarded(scores.shape[-1])
    return tuple(tuple(np.flatnonzero(row >= PLACES).tolist()) for row in share)


class Trial(NamedTuple):
    """One row to come: its edits as a function of the sequences in a batch."""

    column: str
    edit: str
    control: bool
    edits: Edits
    layers: tuple[int, ...]


LATE, FIRST = "late sinks, early layers", "first token, early layers"
BOTH, AFTER = "late sinks and first token, early layers", "first token, late layers"
KINDS: dict[str, tuple[Callable[[Where], Edit], bool]] = {
    "remove": (Remove, False),
    "remove: random direction of equal norm": (lambda w: RandomDirection(w, added=True), True),
    "mean over queries": (Mean, False),
    "block the key": (Block, False),
    "project out": (Project, False),
    "scale by 0.5": (lambda w: Scale(w, 0.5), False),
    "scale by 2": (lambda w: Scale(w, 2.0), False),
    "move to a random direction": (RandomDirection, False),
}
FEW = tuple(KINDS)[:4]


def trials(plan: Plan) -> Iterator[Trial]:
    """The rows of the table, in their order."""
    yield from _same(LATE, plan.early, plan.late, tuple(KINDS))
    yield from _tokens_control(LATE, plan.early, plan.random)
    yield from _moved(plan)
    yield from _same(FIRST, plan.early, plan.first, FEW)
    yield from _same(
        BOTH, plan.early, plan.both, (*FEW, "scale by 2", "move to a random direction")
    )
    yield from _tokens_control(BOTH, plan.early, plan.random_both)
    yield from _same(AFTER, plan.after, plan.first, tuple(KINDS)[:4] + tuple(KINDS)[5:])


def _same(
    column: str, layers: tuple[int, ...], tokens: Sinks, names: tuple[str, ...]
) -> Iterator[Trial]:
    for name in names:
        kind, control = KINDS[name]
        yield _trial(column, name, control, layers, lambda rows, kind=kind: (kind, tokens[rows]))


def _tokens_control(column: str, layers: tuple[int, ...], tokens: Sinks) -> Iterator[Trial]:
    for name, kind in (("remove", Remove), ("block the key", Block)):
        title = f"{name}: as many random tokens"
        yield _trial(column, title, True, layers, lambda rows, kind=kind: (kind, tokens[rows]))


def _trial(
    column: str,
    name: str,
    control: bool,
    layers: tuple[int, ...],
    at: Callable[[slice], tuple[Callable[[Where], Edit], Sinks]],
) -> Trial:
    def edits(rows: slice) -> list[Edit]:
        kind, tokens = at(rows)
        return [kind(Where(layers, tokens))]

    return Trial(column, name, control, edits, layers)


def _moved(plan: Plan) -> Iterator[Trial]:
    """Tags that go elsewhere: exchanged, and given to tokens that never saw the sink."""
    one, two = (
        tuple(row[place : place + 1] if len(row) > 1 else () for row in plan.late)
        for place in (0, 1)
    )
    first = tuple(row[:1] for row in plan.late)
    zero = tuple((0,)[: len(row)] for row in first)
    before = tuple(tuple(range(1, row[-1])) if row else () for row in plan.late)
    last = tuple(row[-1:] for row in plan.late)

    def trial(name: str, edit: Callable[[slice], Edit], control: bool = False) -> Trial:
        return Trial(LATE, name, control, lambda rows: [edit(rows)], plan.early)

    def swap(a: Sinks, b: Sinks) -> Callable[[slice], Edit]:
        return lambda rows: Swap(Where(plan.early, a[rows]), b[rows])

    def transplant(seed: int | None) -> Callable[[slice], Edit]:
        return lambda rows: Transplant(Where(plan.early, last[rows]), before[rows], seed)

    yield trial("swap the first two late sinks' tags", swap(one, two))
    yield trial("swap the first late sink's tag with the first token's", swap(first, zero))
    yield trial("transplant the last sink's tag to all tokens before it", transplant(None))
    yield trial("transplant: random direction of equal norm", transplant(0), control=True)


HEADS = 3  # whose tags are edited one head at a time


def by_head(plan: Plan, places: Sequence[tuple[int, int]]) -> Iterator[Trial]:
    """The strongest heads, one at a time: late sinks' and the first token's tags."""
    for layer, head in places:
        column = f"late sinks and first token, head {head} of layer {layer}"
        for name in ("remove", "remove: random direction of equal norm", "block the key"):
            kind, control = KINDS[name]

            def edits(rows: slice, kind=kind, layer=layer, head=head) -> list[Edit]:
                return [kind(Where((layer,), plan.both[rows], (head,)))]

            yield Trial(column, name, control, edits, (layer,))


def watched(plan: Plan, look: Look, layers: int) -> Watched:
    """The first chosen head, the labels its sinks give, and the stream a few blocks later."""
    layer, head = look.places[0]
    labels = [None if each is None else each.labels for each in look.seen[0]]
    return Watched(plan.both, layer, head, min(layer + RELEASE, layers - 1), labels)


def row(trial: Trial, plain: Outcome, after: Outcome, where: Watched) -> Row:
    """Paired differences; the mass is that of all layers behind the first edited one.

    None for what lies before the first edit: it cannot change.
    """
    first = min(trial.layers)
    later = slice(first + 1, None)
    any_later = first + 1 < len(plain.mass)
    return Row(
        trial.column,
        trial.edit,
        trial.control,
        interval(after.nll - plain.nll),
        interval((after.mass - plain.mass)[later].mean(axis=0)) if any_later else None,
        _paired(plain.ari, after.ari) if first <= where.layer else None,
        _paired(plain.release, after.release) if first <= where.after else None,
    )


def _paired(plain: np.ndarray, after: np.ndarray) -> Interval | None:
    difference = (after - plain)[~np.isnan(plain)]
    return interval(difference) if len(difference) > 1 else None


def table(
    model: PreTrainedModel,
    ids: Int[Tensor, "judged seq"],
    rows: Sequence[Trial],
    where: Watched,
    advance: Advance,
) -> tuple[Outcome, list[Row]]:
    """The untouched model, and every trial against it."""
    plain = outcome(model, ids, lambda rows: (), where)
    advance("untouched")
    found = []
    for trial in rows:
        try:
            found.append(row(trial, plain, outcome(model, ids, trial.edits, where), where))
        except BadInput:  # no direction is left: a row that says so is better than no table
            if "random direction" not in trial.edit:
                raise
            found.append(Row(trial.column, trial.edit, trial.control, None, None, None, None))
        advance(trial.edit)
    return plain, found
