"""The ways of compressing whole components, and what each leaves of a model."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from bridge.component import components
from bridge.compress import AnyMethod, compressed
from bridge.methods.a3 import A3
from bridge.methods.low_rank import MomentLowRank, PlainLowRank
from bridge.methods.sink_heads import Head, SinkHeads, specialised
from bridge.sites import linears
from experiments import measure, recalls
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
        heads = specialised(_first(dense.scores, config.epsilon))
        chosen = _count(model, heads)
        methods |= _sink_heads(config, heads, len(decoder_blocks(model)))
    batches = material.calibration.split(measure.AT_ONCE)
    for name, method in methods.items():
        # The first token's channels are the same in every window, and averages come quickly.
        some = [material.calibration[:2]] if isinstance(method, SinkHeads) else batches
        with compressed(model, method, some) as compression:
            after = _measure(model, material, progress, name)
            cost = compression.cost
        all_kept = (whole - cost.parameters + cost.kept) / whole
        found[name] = _left(after, dense, cost.density, all_kept)
    return Answer(float(dense.hits.mean()), found, chosen)


def _a3(config: "Config") -> dict[str, AnyMethod]:
    found: dict[str, AnyMethod] = {}
    for rho in config.compressions:
        for metric, name in METRICS.items():
            found[f"{name}, {rho:.0%} removed"] = A3(rho, metric=metric, seed=config.seed)
        found[f"control: plain low rank, {rho:.0%} removed"] = PlainLowRank(rho)
        found[f"control: low rank in E[x xᵀ], {rho:.0%} removed"] = MomentLowRank(rho)
    most = max(config.compressions, default=0)
    for part, name in PARTS.items() if most else ():
        found[f"A3, {name}, {most:.0%} removed"] = A3(most, parts=(part,))
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


def _first(scores: np.ndarray, epsilon: float) -> np.ndarray:
    return sinks.sinks(scores[..., 0], epsilon).swapaxes(0, 1)


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
            losses, right = _predicted(model, window)
            nll.append(losses)
            hits.append(right)
            advance(f"window {number + 1}")
        scores = measure.sink_scores(model, material.sequences, advance)
    return _Measured(np.array(nll), np.array(hits), scores)


@torch.no_grad()
def _predicted(model: PreTrainedModel, window: Int[Tensor, " seq"]) -> tuple[float, float]:
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
