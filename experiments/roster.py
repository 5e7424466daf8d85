"""Methods by the names and options of the command line."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from experiments.settings import BadOption, Budget, within

if TYPE_CHECKING:  # torch is imported when a question is asked, not for --help
    from torch import Tensor
    from transformers import PreTrainedModel

    from bridge.method import ComponentMethod, Method
    from bridge.methods.oats import OATS
    from bridge.methods.sink_heads import SinkHeads
    from bridge.quantizers import MXINT, RoundToNearest

PROTECTED = {"protected": "oats", "protected-wanda": "wanda"}
"""Sink-aware compression, and the method that it leaves the rest to."""
SINK_HEADS = "sink-heads"
WITHOUT_LOW_RANK = frozenset(
    {"magnitude", "wanda", "sparsegpt", "sparse-only", "rounding", "gptq", "a3", SINK_HEADS}
)
"""What they leave cannot be saved as an adapter."""
COMPONENTS = frozenset({"a3", SINK_HEADS, *PROTECTED})
"""They replace whole components, which ranks do not share."""
EPSILON = 0.3  # a head whose first token passes this in 90% of the windows is a sink head


def oats(budget: Budget) -> "OATS":
    """OATS within the budget.

    Raises:
        BadInput: a sparsity outside (0, 1), a rank ratio outside [0, 1), no iterations.
    """
    from bridge.methods.oats import OATS

    check(budget)
    return OATS(
        compression=budget.sparsity, rank_ratio=budget.rank_ratio, iterations=budget.iterations
    )


def build(name: str, budget: Budget) -> "Method | ComponentMethod":
    """The method called `name`, with those options of the budget that it has.

    Who competes for a place in a sparse matrix is the method's own choice (the whole matrix for
    magnitude, rows for Wanda); a quantiser, a rank that is not given are too.

    Raises:
        BadInput: an unknown name (the nearest ones are offered), a budget that cannot be.
        BadOption: an option that was given and that this method does not have.
    """
    from bridge.methods import method

    check(budget)
    kind: Any = method(name)
    own = {field.name: field.default for field in fields(kind)}
    _only(name, budget, own)
    return kind(**{field: value for field, value in _chosen(budget, own).items() if field in own})


def refuse(name: str, budget: Budget) -> None:
    """Raise what `fitted` would raise of the name and of the options, before any work is done."""
    if name == SINK_HEADS:
        check(budget)
        _only(name, budget, {"k": None})
        if budget.k is not None:
            within("k", budget.k, 1)
    elif name in PROTECTED:
        _only(name, budget, {})
        build(PROTECTED[name], budget)
    else:
        build(name, budget)


def refuse_ranks(name: str, ranks: int) -> None:
    """Raises BadOption where several ranks are asked for what they do not share."""
    if ranks > 1 and name in COMPONENTS:
        raise BadOption(
            f"--ranks {ranks}: {name} replaces whole components, which ranks do not share; use one"
        )


def fitted(
    name: str, budget: Budget, model: "PreTrainedModel", batches: "Sequence[Tensor]"
) -> "Method | ComponentMethod":
    """As `build`, and the methods that are told where this model's sinks are, on `batches`.

    sink-heads: Corlay's columns for the heads that keep a first-token sink. protected: what sinks
    read and write is kept exactly, the rest is left to OATS, or to Wanda.

    Raises:
        BadInput, BadOption: as `build`; no sink heads, windows too short to look for sinks.
    """
    refuse(name, budget)
    if name == SINK_HEADS:
        return _sink_heads(budget, model, batches)
    if name in PROTECTED:
        from bridge.protected import Protected
        from bridge.sink_tokens import sink_labels

        base: Any = build(PROTECTED[name], budget)
        return Protected(base, sink_labels(model, batches))
    return build(name, budget)


def _sink_heads(
    budget: Budget, model: "PreTrainedModel", batches: "Sequence[Tensor]"
) -> "SinkHeads":
    import torch

    from bridge.methods.sink_heads import SinkHeads, specialised
    from experiments.measure import sink_scores
    from mech.probes.sinks import sinks

    scores = sink_scores(model, torch.cat(list(batches)), lambda _: None)
    heads = specialised(sinks(scores[..., 0], EPSILON).swapaxes(0, 1))
    return SinkHeads(heads, columns=SinkHeads.columns if budget.k is None else budget.k)


def check(budget: Budget) -> None:
    """Raises BadInput where nothing or everything would be removed."""
    from mech.errors import BadInput

    if not 0 < budget.sparsity < 1:
        raise BadInput(
            f"sparsity {budget.sparsity} is not in (0, 1): 0.5 removes half of the weights"
        )


def _only(name: str, budget: Budget, own: dict[str, Any]) -> None:
    """Refuse an option without effect, unless it stands at its default."""
    needs = {"bits": "quantizer", "group": "quantizer", "grid": "quantizer", "rank": "rank",
             "k": "k", "act_order": "act_order"}  # fmt: skip
    for option, field in needs.items():
        given = getattr(budget, option)
        if field not in own and given not in (None, False):
            raise BadOption(f"--{option.replace('_', '-')} {given}: {name} has no such option")


def _chosen(budget: Budget, own: dict[str, Any]) -> dict[str, Any]:
    """Every field that some method has and the budget speaks of."""
    from bridge.patterns import exact

    chosen: dict[str, Any] = {
        "compression": budget.sparsity,
        "rank_ratio": budget.rank_ratio,
        "act_order": budget.act_order,
    }
    if "pattern" in own:
        # 1 - 0.7 in floats is a little above 0.3, and would keep one entry more.
        chosen["pattern"] = type(own["pattern"])(float(1 - exact(budget.sparsity)))
    if "rank_ratio" in own:  # LoftQ iterates too, five times by its paper
        chosen["iterations"] = budget.iterations
    if "quantizer" in own:
        chosen["quantizer"] = _quantizer(budget, own["quantizer"])
    if budget.rank is not None:
        within("rank", budget.rank, 1)
        chosen["rank"] = budget.rank
    return chosen


def _quantizer(budget: Budget, own: "RoundToNearest | MXINT") -> "RoundToNearest | MXINT":
    """The method's own, or the one asked for, with the bits and the group asked for."""
    from bridge.quantizers import MXINT, RoundToNearest

    kinds = {"nearest": RoundToNearest, "mxint": MXINT}
    quantizer = own if budget.grid is None else kinds[budget.grid](bits=own.bits)
    if budget.bits is not None:
        quantizer = replace(quantizer, bits=budget.bits)
    if budget.group is not None:
        group = "block" if isinstance(quantizer, MXINT) else "group"
        quantizer = replace(quantizer, **{group: budget.group})
    return quantizer
