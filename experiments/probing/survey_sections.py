"""A survey as tables: every kind of sink in one, then secondary sinks, heads, and streams."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from experiments.intervals import Interval
from experiments.probing.survey import Survey
from experiments.probing.survey_secondary import Place
from experiments.probing.survey_streams import MassiveFound
from experiments.report import Section, Table
from mech.probes.secondary import KINDS
from mech.probes.sinks import SUPPORT
from mech.probes.specialised import LEAST
from mech.probes.spells import NEVER

NONE = "–"
BUSIEST = 8
"""Layers to name."""


def sections(found: Survey) -> list[Section]:
    """Four sections, in the order in which they are read."""
    return [_every_kind(found), _secondary(found), _heads(found), _streams(found)]


def _every_kind(found: Survey) -> Section:
    columns = ("kind", "definition", "a prompt", "95% interval", "where")
    caption = (
        f"Means over n = {found.prompts} prompts of {_lengths(found)} tokens, with bootstrap "
        f"intervals over prompts. Later tokens are those that more than {SUPPORT} queries see."
    )
    table = Table(columns, [*_sink_rows(found), *_other_rows(found)], caption)
    return Section("Every kind of sink", [_reading(found)], [table])


def _sink_rows(found: Survey) -> Iterator[tuple[str, ...]]:
    seen, epsilon = found.sinks, found.epsilon
    heads = f"of {seen.first_grid.size} heads"
    yield _row("primary", f"first token, α > {epsilon} (equation 1)", seen.first, heads)
    yield _row("later", f"α > {epsilon}, guarded", seen.later, _busiest(seen.later_grid))
    yield _row("as papers count", f"every α > {epsilon}, the tail too", seen.total_raw, "")
    if seen.windowed:
        layers = f"windows in {len(seen.windowed)} of {found.layers} layers"
        what = f"received over the queries that see the key > {epsilon}"
        yield _row("primary, by reach", what, seen.by_reach_first, layers)
        yield _row("later, by reach", what, seen.by_reach_later, layers)
    if seen.missing and seen.missing.mean > 0:
        yield _row("learned", "share of the attention that a learned sink takes", seen.missing, "")
    for place in found.places:
        where = f"blocks {place.span.onset} to {place.span.end - 1}"
        for kind in KINDS[1:]:
            rule = "|cos to the first token| > 0.9, by its share of the span"
            yield _row(f"{kind} ({place.name})", rule, place.kinds[kind], where)


def _other_rows(found: Survey) -> Iterator[tuple[str, ...]]:
    heads, streams = found.heads, found.massive
    kept = f"{heads.first.always} heads in {LEAST:.0%} of the prompts"
    yield _row("sink heads, first token", "heads with the sink", heads.first.count, kept)
    kept = f"{heads.later.always} heads in {LEAST:.0%} of the prompts"
    yield _row("sink heads, later token", "heads with such a sink", heads.later.count, kept)
    resting, quiet = heads.dormant.resting, heads.dormant.quiet
    most = _busiest(heads.dormant.by_layer[:, None])
    yield _row("dormant, by attention", "mean attention to the first token > 0.9", resting, most)
    yield _row("dormant, by output", "mean ‖z‖ below half of the layer's", quiet, "")
    where = "; ".join(_at(kind.at_first, kind.dim) for kind in streams.kinds[:3])
    yield _row("massive activations", "> 100 and ≥ 1000 medians (spells)", streams.count, where)
    for rule in found.rules:
        if rule.count is not None:
            yield _row(
                "outlier features", f"{rule.name}; {rule.reads}", rule.count, _dims(rule.dims)
            )


def _reading(found: Survey) -> str:
    seen = found.sinks
    if not seen.total_raw or seen.total_raw.mean == 0:
        return f"No token of any head receives more than {found.epsilon} of the attention."
    line = f"Equation 1 counts {_f(seen.total_raw)} sinks a prompt, "
    line += f"of which {_f(seen.first)} are first tokens and {_f(seen.later)} later ones. "
    if seen.on_nearly:
        line += (
            "A later token with an activation above 100 medians is a sink in "
            f"{_p(seen.on_nearly)} of its (layer, head) places, any other in {_p(seen.on_others)}."
        )
    return line


def _secondary(found: Survey) -> Section:
    places = found.places
    rows = [
        (name, *(cell(place) for place in places))
        for name, cell in {
            "blocks": lambda p: f"{p.span.onset} to {p.span.end - 1} ({p.agreed:.0%} agree)",
            "tokens a prompt": lambda p: _f(p.count),
            **{k: lambda p, k=k: _f(p.kinds[k]) for k in KINDS},
            **{f"{k}, absolute rule": lambda p, k=k: _f(p.release[k]) for k in KINDS},
            "creation (block)": lambda p: _f(p.creation),
            "lifetime (layers)": lambda p: _f(p.lifetime),
            "contiguous": lambda p: _f(p.contiguous),
            "|cos| of these": lambda p: _f(p.like["found"]),
            "|cos|, same token elsewhere": lambda p: _f(p.like["same id"]),
            "|cos|, other tokens": lambda p: _f(p.like["others"]),
            "MLP's share of the rise": lambda p: _f(p.by_mlp),
            "made by": _made,
            "ρ(norm, score)": lambda p: _f(p.norm_score),
            "ρ(norm, lifetime)": lambda p: _f(p.norm_lifetime),
            "ρ(norm, blocks as a sink)": lambda p: _f(p.norm_attended),
            "a sink of some head": lambda p: _f(p.attended),
            "other tokens: a sink of some head": lambda p: _f(p.attended_others),
            "ρ(their number, the first token's score)": lambda p: _f(p.crowding),
            "levels (creation, lifetime): n": _levels,
        }.items()
    ]
    caption = (
        "Tokens whose state has |cos| > 0.9 to the first token's in the span (Wong et al. 2025, "
        "arXiv:2512.22213). Strict: the span of the paper, from the largest rise of the first "
        "token's norm to its largest fall; phases: all runs of layers in which that norm is above "
        "three medians. Classes by the lifetime's share of the span (0.1, 0.75); absolute rule: "
        "the release's 4 and L − 15 layers."
    )
    table = Table(("", *(place.name for place in places)), rows, caption)
    return Section("Secondary sinks", [_fades(found)], [table])


def _fades(found: Survey) -> str:
    profile = [(i.mean, i, layer) for layer, i in enumerate(found.weakening.profile) if i]
    if not profile:
        return "The first token's score cannot be followed."
    # The first blocks have no sink yet: the weakest layer is sought after the strongest early one.
    third = len(profile) // 3
    top = max(profile[: third + 1])
    later = [entry for entry in profile if entry[2] > top[2]] or [top]
    low = min(later)
    return (
        f"The first token's score (mean α over heads) is {_f(top[1])} in block {top[2]} and falls "
        f"to {_f(low[1])} in block {low[2]}; the middle third of the layers has "
        f"{_f(found.weakening.middle)} more than the others. Over layers it goes with the number "
        f"of sink-like tokens that a block reads at ρ = {_f(found.weakening.with_number)}, and "
        f"with the attention they draw at ρ = {_f(found.weakening.with_strength)}; depth alone "
        "may do that. Over prompts, inside a span, it goes with their number as the table says."
    )


def _heads(found: Survey) -> Section:
    rows = []
    for name, heads in (("first token", found.heads.first), ("later token", found.heads.later)):
        stable = heads.stability
        agree = NONE if stable is None else f"{stable.agreement:.2f}"
        control = (
            NONE if stable is None else f"{stable.control:.2f} (up to {stable.control_high:.2f})"
        )
        rows.append(
            (
                name,
                _f(heads.count),
                str(heads.always),
                str(heads.sure),
                str(heads.never),
                agree,
                control,
            )
        )
    caption = (
        f"Heads that have the sink in a prompt; in at least {LEAST:.0%} of the prompts; of these, "
        "with Wilson's 95% interval above one half; never. Agreement: |A ∩ B| / |A ∪ B| of the "
        f"sets of {LEAST:.0%} that two random halves of the prompts give; dealt: the same with "
        "each prompt's sinks dealt to the heads at random."
    )
    columns = ("sink", "heads a prompt", "always", "sure", "never", "agreement", "dealt")
    kept = Table(columns, rows, caption)
    d = found.heads.dormant
    dormant = Table(
        ("dormant", "heads a prompt", "always", "sometimes"),
        [
            ("by attention", _f(d.resting), str(d.resting_always), str(d.resting_sometimes)),
            ("by output", _f(d.quiet), str(d.quiet_always), str(d.quiet_sometimes)),
            ("by both", _f(d.both), "", ""),
        ],
        "By attention: mean attention to the first token above 0.9 (Guo et al. 2024, "
        "arXiv:2410.13835); by output: mean ‖z‖ below half of the layer's mean (after "
        "Sandoval-Segura et al. 2025, arXiv:2504.03889). Both limits are ours.",
    )
    return Section("Heads that keep a sink, and heads that rest", (), [kept, dormant])


def _streams(found: Survey) -> Section:
    rules = [
        (rule.name, rule.reads, _f(rule.count), _dims(rule.dims) or "none") for rule in found.rules
    ]
    outliers = Table(
        ("rule", "read from", "dimensions a prompt", "which (share of prompts)"),
        rules,
        "Rules of this project (medians of the token), of bitsandbytes' tracer (deviation), of "
        "Dettmers et al. 2022 (arXiv:2208.07339) and of Kovaleva et al. 2021 (arXiv:2105.06990). "
        "Weights do not depend on prompts.",
    )
    tables = [_massive_table(found.massive), _massive_table(found.nearly), outliers]
    return Section("Massive activations and outlier features", (), tables)


def _massive_table(found: MassiveFound) -> Table:
    rows = [
        (
            _at(kind.at_first, kind.dim),
            str(kind.count),
            f"{kind.value:,.0f}",
            NONE if kind.writer == NEVER else f"block {kind.writer}",
            _f(kind.by_mlp),
            "lasts" if kind.death == NEVER else f"block {kind.death} ({kind.agreed:.0%})",
            _f(kind.erased_by_mlp),
            _f(kind.lifetime),
        )
        for kind in found.kinds
    ]
    caption = (
        f"Activations above 100 and {found.ratio:,.0f} medians of the state (Sun et al. 2024, "
        f"arXiv:2402.17762): {_f(found.count)} a prompt, {_f(found.later)} of later tokens. "
        "Written: the block that adds most, and the MLP's part of that; erased: the block after "
        "which it is none, and the MLP's part of all that was taken from it since its peak."
    )
    columns = (
        "where",
        "n",
        "value",
        "written by",
        "MLP's part",
        "erased by",
        "MLP's part",
        "layers",
    )
    return Table(columns, rows, caption)


def _row(
    kind: str, definition: str, count: Interval | None, where: str
) -> tuple[str, str, str, str, str]:
    if count is None:
        return kind, definition, NONE, NONE, where
    return kind, definition, f"{count.mean:.3g}", f"{count.low:.3g} to {count.high:.3g}", where


def _busiest(grid: Float[np.ndarray, "layer head"]) -> str:
    """The layers with most, in order of depth, and their share of all."""
    by_layer = grid.sum(axis=1)
    ranked = np.argsort(-by_layer, kind="stable")[:BUSIEST]
    named = np.sort(ranked[by_layer[ranked] > 0])
    if not len(named):
        return ""
    share = by_layer[named].sum() / by_layer.sum()
    return f"layers {', '.join(map(str, named.tolist()))} hold {share:.0%}"


def _made(place: Place) -> str:
    if place.made_by_mlp is None:
        return NONE
    return f"MLP {place.maker}: {_f(place.made_by_mlp)}; attention {_f(place.made_by_attention)}"


def _levels(place: Place) -> str:
    return ", ".join(f"({made}, {life}): {n}" for made, life, n in place.levels) or NONE


def _dims(dims: dict[int, tuple[float, float]]) -> str:
    return ", ".join(f"{dim} ({share:.0%})" for dim, (share, _) in dims.items())


def _at(at_first: bool, dim: int) -> str:
    return f"{'first' if at_first else 'later'} token, dimension {dim}"


def _lengths(found: Survey) -> str:
    if found.shortest == found.longest:
        return str(found.longest)
    return f"{found.shortest} to {found.longest}"


def _f(value: Interval | None) -> str:
    return NONE if value is None else str(value)


def _p(value: Interval | None) -> str:
    if value is None:
        return NONE
    return f"{value.mean:.2%} [{value.low:.2%}, {value.high:.2%}]"
