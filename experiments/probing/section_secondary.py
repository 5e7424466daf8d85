"""Secondary sinks of a survey: level and class, their makers, their norm, and the primary sink."""

from collections.abc import Callable, Sequence

from experiments.intervals import Interval
from experiments.probing.cells import NONE, estimate
from experiments.probing.survey import Survey
from experiments.probing.survey_secondary import Place
from experiments.report import Section, Table
from mech.probes.secondary import BRIEF, COSINE, KINDS, LASTING, RAISED
from mech.probes.sinks import SUPPORT


def secondary(found: Survey) -> Section:
    """A column for each span of layers; without any span no table, and why."""
    if not found.places:
        none = (
            f"The first token's norm is in no block above {RAISED:.0f} times the median of the "
            f"later tokens' (the median of n = {found.prompts} prompts): there is no primary "
            "sink that others could be like, and cosines to it are not counted."
        )
        return Section("Secondary sinks", [none, _fades(found)])
    return Section("Secondary sinks", [_fades(found)], [table(found.places, found.prompts)])


def table(places: Sequence[Place], prompts: int) -> Table:
    """A row a measure, a column a span of layers."""
    rows = [(name, *(cell(place) for place in places)) for name, cell in _cells(prompts).items()]
    caption = (
        f"Later tokens (seen by more than {SUPPORT} queries) whose state has |cos| > {COSINE} to "
        "the first token's in the span (Wong et al. 2025, arXiv:2512.22213); means over "
        f"n = {prompts} prompts or those that have any, with bootstrap intervals over "
        "prompts. Strict: the span of the paper, from the largest rise of the first token's norm "
        "to its largest fall; phases: all runs of layers in which that norm is above "
        f"{RAISED:.0f} medians. Without a phase neither is read. Classes by the lifetime's share "
        f"of the span ({BRIEF}, {LASTING}); absolute rule: the release's 4 and L − 15 layers."
    )
    return Table(("", *(place.name for place in places)), rows, caption)


def _cells(prompts: int) -> dict[str, Callable[[Place], str]]:
    def of(value: Interval | None) -> str:
        return estimate(value, prompts)

    return {
        "blocks": lambda p: f"{p.span.onset} to {p.span.end - 1} ({p.agreed:.0%} of the prompts)",
        "tokens a prompt": lambda p: of(p.count),
        **{k: lambda p, k=k: of(p.kinds[k]) for k in KINDS},
        **{f"{k}, absolute rule": lambda p, k=k: of(p.release[k]) for k in KINDS},
        "creation (block)": lambda p: of(p.creation),
        "creation (share of the span)": lambda p: of(p.depth),
        "lifetime (layers)": lambda p: of(p.lifetime),
        "contiguous": lambda p: of(p.contiguous),
        "|cos| of these": lambda p: of(p.like["found"]),
        "|cos|, same token elsewhere": lambda p: of(p.like["same id"]),
        "|cos|, other tokens": lambda p: of(p.like["others"]),
        "MLP's share of the rise": lambda p: of(p.by_mlp),
        "made by": _made,
        "ρ(norm, score)": lambda p: of(p.norm_score),
        "ρ(norm, lifetime)": lambda p: of(p.norm_lifetime),
        "ρ(norm, blocks as a sink)": lambda p: of(p.norm_attended),
        "a sink of some head": lambda p: of(p.attended),
        "other tokens: a sink of some head": lambda p: of(p.attended_others),
        "ρ(their number, the first token's score)": lambda p: of(p.crowding),
        "levels (creation, lifetime): n": _levels,
    }


def _fades(found: Survey) -> str:
    profile = [(i.mean, i, layer) for layer, i in enumerate(found.weakening.profile) if i]
    if not profile:
        return "The first token's score cannot be followed."
    # The first blocks have no sink yet: the weakest layer is sought after the strongest early one.
    third = len(profile) // 3
    top = max(profile[: third + 1])
    later = [entry for entry in profile if entry[2] > top[2]] or [top]
    low = min(later)
    weak = found.weakening
    line = (
        f"The first token's score (mean α over heads, n = {top[1].n} prompts) is "
        f"{estimate(top[1])} in block {top[2]} and falls to {estimate(low[1])} in block {low[2]}; "
        f"the middle third of the layers has {estimate(weak.middle)} more than the others."
    )
    if not found.places:
        return line
    return (
        f"{line} Over layers it goes with the number of sink-like tokens that a block reads at "
        f"ρ = {estimate(weak.with_number)}, and with the attention they draw at "
        f"ρ = {estimate(weak.with_strength)}; depth alone may do that. Over prompts, inside a "
        "span, it goes with their number as the table says."
    )


def _made(place: Place) -> str:
    if place.made_by_mlp is None:
        return NONE
    made, attention = estimate(place.made_by_mlp), estimate(place.made_by_attention)
    return f"MLP {place.maker}: {made}; attention {attention}"


def _levels(place: Place) -> str:
    return ", ".join(f"({made}, {life}): {n}" for made, life, n in place.levels) or NONE
