"""What `activation` measures of every variant: losses by window, and what was really read."""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

from bridge.compress import compress
from bridge.evaluate import TokenLosses, token_losses
from bridge.fold import folded
from bridge.methods.gptq import GPTQ
from bridge.quantizers import RoundToNearest
from bridge.sites import place
from experiments import measure
from experiments.decoding import activation_ways
from experiments.decoding.activation import DENSE, TEAL, UNSETTLED, Config, Variant
from experiments.decoding.activation_read import Work, digest
from experiments.progress import Advance, Progress
from experiments.remembered import Found, remembered
from mech.errors import BadInput

GROUP = 128


class Seen(NamedTuple):
    """One variant. nll: nats a scored token of each window. planned, read: shares of bytes.

    saved: its thresholds are those of a recipe, as it was saved.
    """

    nll: Float[np.ndarray, " windows"]
    planned: float
    read: float
    whole: bool = False
    saved: bool = False


def prepared(config: Config, progress: Progress) -> Work:
    """The model and its text; in INT4 where asked, one matrix a linear again.

    Raises:
        BadOption, BadInput: see `activation.run`.
    """
    work = Work.prepared(config, progress)
    if not config.int4:
        return work
    with progress.task("before quantisation", len(work.windows)) as advance:
        before = float(np.exp(losses(work, advance).mean()))
    model, batches = work.loaded.model, work.calibration.split(measure.AT_ONCE)
    with progress.task("GPTQ", len(work.shapes)) as advance:
        compress(model, GPTQ(RoundToNearest(4, GROUP)), batches, advance=advance)
    place(model, folded(model))
    return replace(work, before=before)


def losses(work: Work, advance: Advance) -> Float[np.ndarray, " windows"]:
    """Nats a scored token of each window, of the model as it stands."""
    share = work.config.sparse_from
    return losses_after(work.loaded.model, work.windows, work.bos_id, share, advance)


def losses_after(
    model: nn.Module,
    windows: Int[Tensor, "windows seq"],
    bos_id: int | None,
    share: float,
    advance: Advance,
) -> Float[np.ndarray, " windows"]:
    """The same of tokens that stand behind the first `share` of their window."""
    lead = 0 if bos_id is None else 1
    context = windows.shape[1]
    width = context - lead
    found = token_losses(
        model, windows[:, lead:].flatten(), context=context, stride=width, prefix=bos_id,
        advance=advance,
    )  # fmt: skip
    return scored(found, width, lead, int(context * share))


def scored(losses: TokenLosses, width: int, lead: int, first: int) -> Float[np.ndarray, " windows"]:
    """Mean nats of each window over the tokens that a gated token predicted.

    A token at place i of its window (after `lead` tokens of prefix) is predicted at place i - 1,
    which is gated from place `first` on.
    """
    window = losses.window.numpy()
    place_in_window = losses.position.numpy() - window * width + lead
    use = place_in_window - 1 >= first
    return np.bincount(window[use], losses.nll.numpy()[use]) / np.bincount(window[use])


def variants(work: Work) -> list[Variant]:
    """Dense, every method at every sparsity, plans with a TEAL of exactly their budget."""
    config, found = work.config, [DENSE]
    methods = config.methods
    if not config.settle:  # nothing is settled: the ending says nothing
        methods = [method.removesuffix(UNSETTLED) for method in methods]
    for sparsity in config.sparsities:
        found += [Variant(method, sparsity) for method in methods]
    for variant in work.found_plans:
        found += [Variant(TEAL, variant.sparsity), variant]
    return list(dict.fromkeys(found))


def measured(work: Work, variant: Variant) -> Seen | str:
    """One variant, from the folder where it was measured before; or why it cannot be."""
    found = remembered(work.config.state, _key(work, variant), lambda: _measure(work, variant))
    facts = found.facts
    if "why" in facts:
        return facts["why"]
    saved = variant.plan and work.found_plans[variant].recipe is not None
    return Seen(found.arrays["nll"], facts["planned"], facts["read"], facts["whole"], saved)


def _key(work: Work, variant: Variant) -> dict[str, Any]:
    config, amounts = work.config, work.config.amounts
    method = variant.method.removesuffix(UNSETTLED)
    more: dict[str, Any] = {
        "method": "plan" if variant.plan else method,
        "sparsity": variant.sparsity,
        "sparse_from": config.sparse_from,
        "windows": digest(work.windows),
    }
    if config.settle and _settles(work, variant):
        more["settle"] = [config.settle, amounts.settling]
    if variant.plan:
        more["plan"] = work.found_plans[variant].digest
    elif method == "multi-phase":
        more["phases"] = config.phases
    elif method == "teal-greedy":
        more["greedy"] = [amounts.greedy, amounts.greedy_seq, amounts.greedy_step]
        more["most"] = max(config.sparsities)
    return work.key("variant", more)


def _settles(work: Work, variant: Variant) -> bool:
    if variant.plan:
        return work.found_plans[variant].recipe is None
    return variant.method in activation_ways.SETTLED


def _measure(work: Work, variant: Variant) -> Found:
    name = f"{variant.method} {variant.sparsity:g}"
    with work.progress.task(name, len(work.windows)) as advance:
        if variant == DENSE:
            facts = {"planned": 1.0, "read": 1.0, "whole": True}
            return Found({"nll": losses(work, advance)}, facts)
        try:
            if variant.plan:
                made = work.found_plans[variant].made(work.given)
            else:
                made = activation_ways.made(work.given, variant.method, variant.sparsity)
            with activation_ways.applied(work.given, made, work.config.sparse_from) as realised:
                nll = losses(work, advance)
        except BadInput as error:
            return _refused(variant, error)
    planned = made.planned if not math.isnan(made.planned) else realised.share
    facts = {"planned": planned, "read": realised.share, "whole": made.whole}
    return Found({"nll": nll}, facts)


def _refused(variant: Variant, error: BadInput) -> Found:
    """A budget that a method cannot meet is an answer; anything else is an error."""
    if variant.method.partition("-")[0] in ("cats", "griffin", "relu"):
        return Found({}, {"why": str(error)})
    raise error
