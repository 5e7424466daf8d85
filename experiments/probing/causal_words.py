"""The table of interventions and what it allows to say."""

from collections.abc import Sequence

from experiments.intervals import Interval
from experiments.probing.causal import BOTH, LATE, Plan, Row
from experiments.probing.repeats import Repeat
from experiments.report import Section, Table


def causal_section(
    rows: Sequence[Row], by_head: Sequence[Row], plan: Plan, nll: Interval, text: str | None
) -> Section:
    """One table for all columns, one for single heads."""
    n = nll.n
    late = sum(map(len, plan.late)) / max(len(plan.late), 1)
    lines = [
        f"Early layers: {_layers(plan.early)}, chosen on the even sequences as those with more "
        f"than twice the mean number of later sinks. {late:.1f} late sinks a judged sequence. Late "
        f"layers: {_layers(plan.after)}. The untouched model has {nll} nats a token.",
        *verdict(rows),
    ]
    caption = (
        f"Paired changes against the untouched model, means over n = {n} sequences of {text} with "
        "95% intervals. Later sink mass: share of all attention that goes to these sinks in the "
        "layers after the first edited one. ARI: of the strongest head's own groups. Release: η² "
        "of its sinks above random segments, in the stream three blocks later. Controls in "
        "brackets. A sink's own query is never edited. Tags are said to matter where the "
        "interval of their removal lies above the control's: stricter than pairing."
    )
    tables = [_table(rows, caption)]
    if by_head:
        tables.append(_table(by_head, "The same for the strongest heads, one at a time."))
    return Section("What the tags cause", lines, tables)


def verdict(rows: Sequence[Row]) -> list[str]:
    """Whether removal costs more than as large a change elsewhere, and what blocking costs."""
    found = {(row.column, row.edit): row.nll for row in rows}
    lines = []
    for column in (LATE, BOTH):
        removed = found[column, "remove"]
        control = found[column, "remove: random direction of equal norm"]
        blocked = found[column, "block the key"]
        if removed is None or control is None or blocked is None:
            lines.append(
                f"{column[:1].upper()}{column[1:]}: a sequence has so many sinks that no direction "
                "is left for the control; nothing is said of a cause."
            )
            continue
        lines.append(
            f"{column[:1].upper()}{column[1:]}: removing the tags changes the loss by "
            f"{_signed(removed)} nats, a random direction of equal norm by {_signed(control)}, "
            f"blocking the keys by {_signed(blocked)}. {_means(removed, control, blocked)}"
        )
    return lines


def _means(removed: Interval, control: Interval, blocked: Interval) -> str:
    tag = (
        "So the tags matter more than any change of their size"
        if removed.low > max(control.high, 0)
        else "So that tags cause what follows is not supported by the loss on this text"
    )
    place = blocked.low > max(10 * abs(removed.mean), removed.high)
    return tag + ("; the sinks as places for attention do matter." if place else ".")


def repeats_section(repeats: Sequence[Repeat]) -> Section:
    """Loss on the second of two equal stretches."""
    rows = [(each.edit, _signed(each.first), _signed(each.second)) for each in repeats]
    caption = (
        "Nats a token on each copy: the untouched model's own, then paired changes, "
        f"n = {repeats[0].first.n} texts with 95% intervals."
    )
    return Section(
        "Does copying need them?",
        ["Each text's first half stands twice: the second copy can be had from the first."],
        [Table(("edit", "first copy", "second copy"), rows, caption)],
    )


def _table(rows: Sequence[Row], caption: str) -> Table:
    cells = []
    column = ""
    for row in rows:
        name = f"[{row.edit}]" if row.control else row.edit
        heading = row.column if row.column != column else ""
        column = row.column
        changes = (row.nll, row.mass, row.ari, row.release)
        cells.append((heading, name, *(_signed(change) for change in changes)))
    titles = ("where", "edit", "Δ nats a token", "Δ later sink mass", "Δ ARI", "Δ release")
    return Table(titles, cells, caption)


def _layers(layers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


def _signed(found: Interval | None) -> str:
    return "–" if found is None else f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
