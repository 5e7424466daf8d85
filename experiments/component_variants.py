"""The ways of compressing whole components, and what each leaves of a model."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from bridge.component import Component, components
from bridge.compress import compressed
from bridge.method import Method
from bridge.methods.a3 import A3
from bridge.methods.low_rank import MomentLowRank, PlainLowRank
from bridge.methods.sink_heads import Head, SinkHeads, specialised
from bridge.sites import linears
from bridge.toggle import swap
from experiments import measure, recalls
from experiments.effects import percent
from experiments.intervals import interval
from experiments.progress import Progress
from mech.blocks import decoder_blocks
from mech.probes import sinks

if TYPE_CHECKING:
    from experiments.components import Config, Left, SinkHeadCount

DENSE = "dense"
PARTS = {"qk": "QK alone", "ov": "OV alone", "mlp": "MLP alone"}
METRICS = {"moments": "A3", "weights": "control: by weights alone", "random": "control: at random"}
BY = {"bos": "largest at BOS", "mean": "control: largest on average", "random": "control: random"}


class Answer(NamedTuple):
    """accuracy: of the dense model, share of tokens whose largest logit is the next token."""

    accuracy: float
    found: "dict[str, Left]"
    chosen: "SinkHeadCount | None"


class _Measured(NamedTuple):
    nll: Float[np.ndarray, " windows"]
    hits: Float[np.ndarray, " windows"]
    scores: Float[np.ndarray, "layer sequences head key"]


def measured(
    config: "Config", model: PreTrainedModel, material: measure.Material, progress: Progress
) -> Answer:
    """Every variant that the config asks for, one after the other, against the dense model."""
    dense = _measure(model, material, progress, DENSE)
    whole = sum(linear.weight.numel() for linear in linears(model).values())
    found = {DENSE: _left(dense, dense, 1.0, 1.0)}
    methods: dict[str, AnyMethod] = _a3(config) if "a3" in config.questions else {}
    chosen = None
    if "sinks" in config.questions:
        text = material.calibration[: config.sizes.sequences]
        heads = sinking(model, text, config.epsilon, progress)
        chosen = _count(model, heads)
        methods |= _sink_heads(config, heads, len(decoder_blocks(model)))
    with progress.task("calibrate") as _:
        states = states_of(model, list(methods.values()), material.calibration)
    for name, method in methods.items():
        with standing(model, method, states, material.calibration) as (parameters, kept):
            after = _measure(model, material, progress, name)
        found[name] = _left(after, dense, kept / parameters, (whole - parameters + kept) / whole)
    return Answer(float(dense.hits.mean()), found, chosen)


_Whole = A3 | SinkHeads
AnyMethod = _Whole | Method
States = dict[type, list[tuple[Component, dict[str, Tensor]]]]


def states_of(model: PreTrainedModel, methods: Sequence[AnyMethod], text: Tensor) -> States:
    """What methods of components see of the dense model, each kind once: one pass for all.

    Layers are calibrated independently, as A3's authors do it. The low-rank controls go through
    `bridge.compress`, block after block on what the compressed ones emit, which helps them.
    """
    kinds = {type(method): method for method in methods if isinstance(method, _Whole)}
    with ExitStack() as stack, torch.no_grad():
        states: States = {
            kind: [(c, stack.enter_context(method.watch(c))) for c in components(model)]
            for kind, method in kinds.items()
        }
        for window in text if kinds else ():
            model.base_model(window[None].to(model.device), use_cache=False)  # type: ignore[operator]
    return states


@contextmanager
def standing(
    model: nn.Module, method: AnyMethod, states: States, text: Tensor
) -> Iterator[tuple[int, int]]:
    """The model compressed inside; the weights replaced, and the numbers kept of them."""
    if not isinstance(method, _Whole):
        with compressed(model, method, text.split(measure.AT_ONCE)) as compression:
            yield compression.cost.parameters, compression.cost.kept
        return
    operators = {
        component.names[role]: operator
        for component, state in states[type(method)]
        for role, operator in method(component, state).items()
    }
    shapes = [operator.shape for operator in operators.values()]
    kept = sum(operator.parameters_kept() for operator in operators.values())
    with swap(model, operators):
        yield sum(d_out * d_in for d_out, d_in in shapes), kept


def _a3(config: "Config") -> dict[str, AnyMethod]:
    found: dict[str, AnyMethod] = {}
    for rho in config.compressions:
        for metric, name in METRICS.items():
            found[f"{name}, {percent(rho)} removed"] = A3(rho, metric=metric, seed=config.seed)
        found[f"control: plain low rank, {percent(rho)} removed"] = PlainLowRank(rho)
        found[f"control: low rank in its inputs' moment, {percent(rho)} removed"] = MomentLowRank(
            rho
        )
    most = max(config.compressions, default=0)
    for part, name in PARTS.items() if most else ():
        found[f"A3, {name}, {percent(most)} removed"] = A3(most, parts=(part,))
    return found


def _sink_heads(config: "Config", heads: tuple[Head, ...], depth: int) -> dict[str, AnyMethod]:
    thirds = {
        "early third": range(depth // 3),
        "middle third": range(depth // 3, 2 * depth // 3),
        "late third": range(2 * depth // 3, depth),
    }
    choices = {"all layers": range(depth)} | thirds
    found: dict[str, AnyMethod] = {}
    for where, layers in choices.items():
        some = tuple(head for head in heads if head[0] in layers)
        for columns in config.columns if where == "all layers" else config.columns[:1]:
            for by, name in BY.items() if some else ():
                method = SinkHeads(some, columns=columns, by=by, seed=config.seed)
                found[f"{len(some)} sink heads of {where}, {columns} columns, {name}"] = method
    return found


def sinking(
    model: PreTrainedModel, text: Tensor, epsilon: float, progress: Progress
) -> tuple[Head, ...]:
    """Heads that keep a first-token sink, found on text that nothing is measured on."""
    with progress.task("sink heads", len(text.split(measure.AT_ONCE))) as advance:
        scores = measure.sink_scores(model, text, advance)
    return specialised(sinks.sinks(scores[..., 0], epsilon).swapaxes(0, 1))


def _count(model: nn.Module, heads: tuple[Head, ...]) -> "SinkHeadCount":
    from experiments.components import SinkHeadCount

    attentions = [c for c in components(model) if c.kind == "attention"]
    whole = 0
    for attention in attentions:
        group = attention.n_heads // attention.n_kv_heads
        here = [head for layer, head in heads if layer == attention.layer]
        owners = [head // group for head in here]
        whole += sum(owners.count(kv) == group for kv in range(attention.n_kv_heads))
    queries, keys = (sum(getattr(c, n) for c in attentions) for n in ("n_heads", "n_kv_heads"))
    return SinkHeadCount(len(heads), whole, queries, keys)


def _measure(
    model: PreTrainedModel, material: measure.Material, progress: Progress, name: str
) -> _Measured:
    windows, groups = material.evaluation, material.sequences.split(measure.AT_ONCE)
    nll, hits = [], []
    with progress.task(name, len(windows) + len(groups)) as advance:
        for number, window in enumerate(windows):
            losses, right = predicted(model, window)
            nll.append(losses)
            hits.append(right)
            advance(f"window {number + 1}")
        scores = measure.sink_scores(model, material.sequences, advance)
    return _Measured(np.array(nll), np.array(hits), scores)


@torch.no_grad()
def predicted(model: PreTrainedModel, window: Int[Tensor, " seq"]) -> tuple[float, float]:
    """Mean nats a token of a window, and the share of its tokens that were the likeliest."""
    logits = model(input_ids=window[None].to(model.device), use_cache=False).logits[0, :-1].cpu()
    wanted = window[1:].cpu()
    nll = nn.functional.cross_entropy(logits.float(), wanted)
    return float(nll), float((logits.argmax(-1) == wanted).double().mean())


def _left(after: _Measured, dense: _Measured, density: float, whole: float) -> "Left":
    from experiments.components import Left

    found, reference = (sinks.sinks(m.scores, measure.EPSILON) for m in (after, dense))
    return Left(
        density=density,
        whole=whole,
        ppl=float(np.exp(min(after.nll.mean(), 700.0))),
        nll=interval(after.nll - dense.nll),
        accuracy=interval(after.hits - dense.hits),
        recalls=recalls.recalls(recalls.ratios(found, reference)),
    )
