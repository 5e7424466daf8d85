"""Heads of a survey: those that keep a sink over prompts, and those that rest."""

from experiments.probing.cells import NONE, estimate, number
from experiments.probing.survey import Survey
from experiments.probing.survey_heads import Keepers
from experiments.report import Section, Table
from mech.probes.dormant import QUIET, RESTING
from mech.probes.specialised import LEAST


def heads(found: Survey) -> Section:
    """Two tables."""
    return Section("Heads that keep a sink, and heads that rest", (), [_kept(found), _rest(found)])


def _kept(found: Survey) -> Table:
    pairs = (("first token", found.heads.first), ("later token", found.heads.later))
    caption = (
        f"Of {found.heads.heads} heads, those with α > {found.epsilon} at such a token, over "
        f"n = {found.prompts} prompts (after Sok et al. 2026, arXiv:2601.06787, who rank heads): "
        f"in a prompt, with a bootstrap interval; always: in at least {LEAST:.0%} of the prompts; "
        "sure: of these, with Wilson's 95% interval above one half; never. Agreement: "
        "|A ∩ B| / |A ∪ B| "
        f"of the sets of {LEAST:.0%} that two random halves of the prompts give; dealt: the same "
        "with each prompt's sinks dealt to the heads at random."
    )
    columns = ("sink", "heads a prompt", "always", "sure", "never", "agreement", "dealt")
    return Table(columns, [(name, *_row(keepers)) for name, keepers in pairs], caption)


def _row(kept: Keepers) -> tuple[str, ...]:
    always, sure, never = str(kept.always), str(kept.sure), str(kept.never)
    stable = kept.stability
    if stable is None:
        return estimate(kept.count), always, sure, never, NONE, NONE
    dealt = number(stable.control)
    if dealt != NONE:
        dealt += f" (up to {number(stable.control_high)})"
    return estimate(kept.count), always, sure, never, number(stable.agreement), dealt


def _rest(found: Survey) -> Table:
    d = found.heads.dormant
    return Table(
        ("dormant", "heads a prompt", "always", "sometimes"),
        [
            ("by attention", estimate(d.resting), str(d.resting_always), str(d.resting_sometimes)),
            ("by output", estimate(d.quiet), str(d.quiet_always), str(d.quiet_sometimes)),
            ("by both", estimate(d.both), "", ""),
        ],
        f"Of {found.heads.heads} heads, n = {found.prompts} prompts. By attention: mean attention "
        f"to the first token above {RESTING} (Guo et al. 2024, arXiv:2410.13835); by output: mean "
        f"‖z‖ below {QUIET} of the layer's mean (after Sandoval-Segura et al. 2025, "
        f"arXiv:2504.03889). Both limits are ours. Always: in at least {LEAST:.0%} of the prompts; "
        "sometimes: in fewer, and in one at least.",
    )
