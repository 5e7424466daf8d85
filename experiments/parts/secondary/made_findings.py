"""Findings on secondary sinks: correlations and interventions, each beside its control."""

from collections.abc import Iterator

from experiments.findings import ABOVE_ZERO, BELOW_ZERO, Finding, Region
from experiments.intervals import Interval
from experiments.parts.secondary.made import left, less
from experiments.probing.bootstrap import over_prompts
from experiments.probing.survey_secondary import Place
from experiments.probing.survey_weakening import Weakening


def of_place(place: Place, seen: dict) -> Iterator[Finding]:
    """The three claims in one span of layers; `seen` by edit (`made.EDITS`) and measure."""

    def of(edit: str, name: str) -> Interval | None:
        return left(seen[edit][name], seen["dense"][name]) if edit in seen else None

    half, one = Region(high=0.5), Region(high=1.0)
    first, elsewhere = (less(seen, edit, "primary") for edit in ("none", "others"))
    attention, blocks = of("attention", "drawn"), "a third of the blocks are in the middle third"
    count, mlp = f"{place.count} such tokens a prompt", f"MLP {place.maker}"
    for which, case, effect, unit, claimed, control in (
        ("1/middle", "made there", over_prompts(seen["dense"]["middle"]), "share of them",
         Region(low=0.5), f"{blocks}; {count}"),
        ("1/mlp", f"{mlp} writes nothing", of("none", "drawn"), "share of attention left", half,
         f"attention of that block writes nothing: {attention}"),
        ("1/aligned", f"{mlp}'s part", place.by_mlp, "share of the rise along the primary sink",
         Region(low=0.5), f"added by the MLP {place.made_by_mlp}, by attention "
         f"{place.made_by_attention}"),
        ("2/score", "over tokens", place.norm_score, "ρ", ABOVE_ZERO, "no relation: 0"),
        ("2/score", f"{mlp} writes half", of("half", "drawn"), "share of attention left", one,
         f"it writes nothing: {of('none', 'drawn')}"),
        ("2/lifetime", "over tokens", place.norm_lifetime, "ρ", ABOVE_ZERO, "no relation: 0"),
        ("2/lifetime", f"{mlp} writes half", of("half", "lasted"), "share of layers left", one,
         f"it writes nothing: {of('none', 'lasted')}"),
        ("3/coincides", "over prompts", place.crowding, "ρ", BELOW_ZERO, "no relation: 0"),
        ("3/coincides", f"{mlp} writes nothing there", first, "α of the first token", ABOVE_ZERO,
         f"as many other tokens: {elsewhere}"),
    ):  # fmt: skip
        case, note = f"{place.name}: {case}", "" if effect else f"{place.name}: too few such tokens"
        key = f"secondary/{which}"
        yield Finding(key, case, effect, unit, "prompts", claimed, control, note)


def fading(weak: Weakening, found: bool) -> Iterator[Finding]:
    """The primary sink over the layers; `found`: whether there is one."""
    note = "" if found else "the first token is raised in no block: there is no primary sink"
    for which, case, effect, unit in (
        ("weakens", "middle third less the others", weak.middle, "α of the first token"),
        ("coincides", "over layers", weak.with_number if found else None, "ρ"),
    ):
        control = "another depth, or no relation: 0"
        yield Finding(
            f"secondary/3/{which}", case, effect, unit, "prompts", BELOW_ZERO, control, note
        )
