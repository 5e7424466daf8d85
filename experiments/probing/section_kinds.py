"""Every kind of sink and outlier of a survey in one table, a row for each."""

from collections.abc import Iterator

from experiments.intervals import Interval
from experiments.probing.cells import NONE, busiest, entry, estimate, number, percent
from experiments.probing.survey import Survey
from experiments.probing.survey_streams import Rule
from experiments.report import Section, Table
from mech.probes.dormant import QUIET, RESTING
from mech.probes.massive import LEAST as LARGE
from mech.probes.massive import RATIO
from mech.probes.secondary import COSINE, KINDS, RAISED
from mech.probes.sinks import SUPPORT
from mech.probes.specialised import LEAST

Row = tuple[str, str, str, str, str]


def every_kind(found: Survey) -> Section:
    """How many of each there are in a prompt."""
    columns = ("kind", "what is counted", "a prompt", "95% interval", "where")
    caption = (
        f"Means over n = {found.prompts} prompts of {_lengths(found)} tokens, with bootstrap "
        f"intervals over prompts. α: equation 1 of Gu et al. 2025, arXiv:2410.10781. Later tokens "
        f"are those that more than {SUPPORT} queries see. Cosines: Wong et al. 2025, "
        "arXiv:2512.22213; the other sources stand below the tables of their kind."
    )
    table = Table(
        columns, [*_sinks(found), *_alike(found), *_heads(found), *_outliers(found)], caption
    )
    return Section("Every kind of sink", [_reading(found)], [table])


def _sinks(found: Survey) -> Iterator[Row]:
    seen, epsilon = found.sinks, found.epsilon
    yield _row("primary", f"first tokens, α > {epsilon}", seen.first, _of(seen.first_grid.size))
    yield _row("later", f"later tokens, α > {epsilon}", seen.later, busiest(seen.later_grid))
    yield _row("as papers count", f"all α > {epsilon}, the tail too", seen.total_raw, "")
    readings = (seen.by_reach_first, seen.by_reach_later)
    if seen.windowed or readings != (seen.first, seen.later):
        where = f"windows in {len(seen.windowed)} of {found.layers} layers"
        what = "tokens, of the queries that see them"
        yield _row("primary, by reach", f"first {what}", seen.by_reach_first, where)
        yield _row("later, by reach", f"later {what}", seen.by_reach_later, where)
    if seen.missing and seen.missing.mean > 0:
        yield _row("learned", "attention that a learned sink takes", seen.missing, "")


def _alike(found: Survey) -> Iterator[Row]:
    if not found.places:
        none = Interval(0.0, 0.0, 0.0, found.prompts)
        where = f"none: the first token's norm is nowhere above {RAISED:.0f} medians"
        yield _row("secondary", f"later tokens, |cos to the first| > {COSINE}", none, where)
    for place in found.places:
        where = f"blocks {place.span.onset} to {place.span.end - 1}"
        for kind in KINDS[1:]:
            what = f"|cos to the first token| > {COSINE}"
            yield _row(f"{kind}, {place.name}", what, place.kinds[kind], where)


def _heads(found: Survey) -> Iterator[Row]:
    heads = found.heads
    often = f"in {LEAST:.0%} of the prompts"
    for name, keepers in (("first", heads.first), ("later", heads.later)):
        kept = f"{keepers.always} heads {often}"
        yield _row(f"sink heads, {name} token", "heads with such a sink", keepers.count, kept)
    most = busiest(heads.dormant.by_layer[:, None])
    what = f"heads, attention to the first > {RESTING}"
    yield _row("dormant, by attention", what, heads.dormant.resting, most)
    what = f"heads, ‖z‖ < {QUIET} of the layer's mean"
    yield _row("dormant, by output", what, heads.dormant.quiet, "")


def _outliers(found: Survey) -> Iterator[Row]:
    where = "; ".join(entry(kind.at_first, kind.dim) for kind in found.massive.kinds[:3])
    what = f"spells of > {LARGE:.0f} and ≥ {RATIO:,.0f} medians"
    yield _row("massive activations", what, found.massive.count, where)
    for rule in found.rules:
        if rule.count is not None:
            yield _row("outlier features", rule.name, rule.count, _named(rule))


def _named(rule: Rule) -> str:
    return ", ".join(f"{dim} ({share:.0%})" for dim, (share, _) in rule.dims.items())


def _reading(found: Survey) -> str:
    seen = found.sinks
    if not seen.total_raw or seen.total_raw.mean == 0:
        return f"No token of any head receives more than {found.epsilon} of the attention."
    line = f"Equation 1 counts {estimate(seen.total_raw)} sinks a prompt, "
    line += f"of which {estimate(seen.first)} are first tokens and {estimate(seen.later)} later "
    line += "ones that are seen by enough queries. "
    if seen.on_nearly:
        line += (
            "A later token with an activation above 100 medians is a sink in "
            f"{percent(seen.on_nearly)} of its (layer, head) places, any other in "
            f"{percent(seen.on_others)} (n = {seen.on_nearly.n} prompts that have one)."
        )
    return line


def _row(kind: str, what: str, count: Interval | None, where: str) -> Row:
    if count is None:
        return kind, what, NONE, NONE, where
    return kind, what, number(count.mean), f"{number(count.low)} to {number(count.high)}", where


def _of(heads: int) -> str:
    return f"of {heads} heads"


def _lengths(found: Survey) -> str:
    if found.shortest == found.longest:
        return str(found.longest)
    return f"{found.shortest} to {found.longest}"
