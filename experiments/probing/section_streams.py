"""Massive activations and outlier features of a survey."""

from experiments.probing.cells import NONE, entry, estimate
from experiments.probing.survey import Survey
from experiments.probing.survey_streams import MassiveFound, Rule
from experiments.report import Section, Table
from mech.probes.massive import LEAST
from mech.probes.spells import NEVER


def streams(found: Survey) -> Section:
    """Spells by both limits, and what four rules call an outlier feature."""
    rules = [(rule.name, rule.reads, estimate(rule.count), _dims(rule)) for rule in found.rules]
    outliers = Table(
        ("rule", "read from", "dimensions a prompt", "which"),
        rules,
        f"Dimensions that a rule names, n = {found.prompts} prompts, with the share of the prompts "
        "in which it does. Rules of this project (medians of the token), of bitsandbytes' tracer "
        "(deviation over the same ordinary tokens, those without an activation above 100 medians), "
        "of Dettmers et al. 2022 (arXiv:2208.07339) and of Kovaleva et al. 2021 "
        "(arXiv:2105.06990). Weights do not depend on prompts: of the layers.",
    )
    tables = [_massive(found.massive, found.prompts), _massive(found.nearly, found.prompts)]
    return Section("Massive activations and outlier features", (), [*tables, outliers])


def _massive(found: MassiveFound, prompts: int) -> Table:
    rows = [
        (
            entry(kind.at_first, kind.dim),
            str(kind.count),
            f"{kind.value:,.0f}",
            NONE if kind.writer == NEVER else f"block {kind.writer}",
            estimate(kind.by_mlp),
            "lasts" if kind.death == NEVER else f"block {kind.death} ({kind.agreed:.0%})",
            estimate(kind.erased_by_mlp),
            estimate(kind.lifetime),
        )
        for kind in found.kinds
    ]
    caption = (
        f"Activations above {LEAST:.0f} and {found.ratio:,.0f} medians of the state (Sun et al. "
        f"2024, arXiv:2402.17762, whose ratio is 1,000): {estimate(found.count)} a prompt, "
        f"{estimate(found.later)} of later tokens, n = {prompts} prompts; in the table n is the "
        "number of spells. Written: the block that adds most, and the MLP's part of that; erased: "
        "the block after which it is none, and the MLP's part of all that was taken from it since "
        "its peak; both as means over the prompts that have such a spell."
    )
    columns = ("where", "n", "value", "written", "by the MLP", "erased", "by MLPs", "layers")
    return Table(columns, rows, caption)


def _dims(rule: Rule) -> str:
    if rule.count is None:
        told = [f"{dim} ({layers:.0%})" for dim, (_, layers) in rule.dims.items()]
    else:
        told = [f"{dim} ({share:.0%})" for dim, (share, _) in rule.dims.items()]
    return ", ".join(told) or "none"
