"""What `sparse-sinks` calibrates: the dense model's inputs, and gates that read their budget."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from bridge.allocate.sinks import sink_scores
from bridge.decode import sinks as decode_sinks
from bridge.decode.factors import down_up
from bridge.decode.inputs import calibrate, quantile
from bridge.decode.plan import Plan, Setting
from bridge.sink_tokens import ORDINARY, sink_labels
from bridge.sites import linears
from experiments import measure, tags_kept
from experiments.decoding.gates import gated
from experiments.decoding.sink_read import Looks, Text, check_head
from experiments.decoding.sink_ways import EXACT, Calibration, Factors, Spending, dense_tokens
from experiments.decoding.sinks import PLAIN, Config, Shift, Variant
from experiments.measure import Material
from experiments.progress import Progress
from mech.load import Loaded

ALPHA = 0.95  # R-Sparse's uniform share of channels (Zhang et al. 2025)
ALLOCATED = ("makers", "shuffled")


@dataclass
class Work:
    """What all variants share. `dense` and `factors` are filled as they are needed."""

    config: Config
    model: PreTrainedModel
    model_sha256: str
    material: Material
    linears: Mapping[str, nn.Linear]
    weights: list[np.ndarray]
    calibration: Calibration
    scores: Mapping[str, float]
    labels: Int[Tensor, "windows seq"]
    progress: Progress
    dense: dict[float, tuple[Looks, Float[np.ndarray, " windows"]]]
    factors: dict[str, Factors]

    @property
    def whole(self) -> int:
        """Weights of all linears."""
        return sum(linear.weight.numel() for linear in self.linears.values())

    def text(self, sparse_from: float) -> Text:
        """The held-out text."""
        return Text(self.material.evaluation, self.labels, sparse_from)


def prepared(config: Config, loaded: Loaded, material: Material, progress: Progress) -> Work:
    """What the dense model reads and where its sinks are, on both halves of the text."""
    model = loaded.model
    batches = material.calibration.split(measure.AT_ONCE)
    check_head(model, material.evaluation[0])
    with progress.task("dense model", 4 + len(batches)) as advance:
        labels = torch.cat(sink_labels(model, batches))
        advance("sinks of the calibration text")
        held_out = torch.cat(sink_labels(model, material.evaluation.split(measure.AT_ONCE)))
        advance("sinks of the held-out text")
        dims = decode_sinks.massive_dims(model, batches[0])
        scores = sink_scores(model, batches) if set(ALLOCATED) & set(config.ways) else {}
        advance("where sinks are made")
        inputs = calibrate(model, batches, keep=labels.numel(), advance=advance)
    names = tags_kept.outputs(model)
    return Work(
        config=config,
        model=model,
        model_sha256=loaded.sha256,
        material=material,
        linears=linears(model),
        weights=tags_kept.matrices(model, names),
        calibration=Calibration(inputs, labels, dims),
        scores=scores,
        labels=held_out,
        progress=progress,
        dense={},
        factors={},
    )


def plan_of(work: Work, variant: Variant) -> Plan:
    """Settings by linear; what is read in all is the same for every way."""
    setting = {
        "teal": Setting(variant.sparsity),
        "rsparse": Setting(variant.sparsity, ALPHA, "column", "svd"),
        "rsparse-moment": Setting(variant.sparsity, ALPHA, "magnitude", "moment"),
    }[variant.method]
    if variant.way not in ALLOCATED:
        return dict.fromkeys(work.linears, setting)
    scores = work.scores
    if variant.way == "shuffled":
        scores = decode_sinks.shuffled(scores)
    return decode_sinks.scored_plan(work.model, scores, setting, spread=work.config.spread)


def asked(work: Work, spent: Spending) -> dict[str, float]:
    """Shares to take quantiles at, so that gated inputs read what they should.

    Gates upstream change what a linear is given, by little a block and by much in thirty: every
    round reads the calibration text through the gates and moves each share by what is missing.
    """
    target = spent.channels()
    shares = dict(target)
    if spent.way in EXACT and spent.way != "noise":
        return shares
    # Noise stands for the error of the plain gates: it has their thresholds.
    plain = replace(spent, way=PLAIN) if spent.way == "noise" else spent
    for _ in range(work.config.amounts.rounds):
        read = gates_read(work, plain, shares)
        shares = {n: float(np.clip(c + target[n] - read[n], 0, 1)) for n, c in shares.items()}
    return shares


def gates_read(work: Work, spent: Spending, shares: Mapping[str, float]) -> dict[str, float]:
    """What gates read of the calibration text, by linear."""
    ids, labels = work.material.calibration, work.calibration.labels
    first = int(labels.shape[1] * spent.sparse_from)
    with gated(work.model, spent.keeps(shares)) as phase, torch.no_grad():
        for group, kinds in zip(
            ids.split(measure.AT_ONCE), labels.split(measure.AT_ONCE), strict=True
        ):
            whole = dense_tokens(spent.way, kinds)
            whole[:, :first] = True
            phase.begin(whole)
            work.model.base_model(input_ids=group, use_cache=False)
    return {name: gate.share for name, gate in phase.gates.items()}


def shifts(work: Work, sparsity: float) -> list[Shift]:
    """How far TEAL's thresholds move when sinks are left out of the calibration."""
    inputs, ordinary = work.calibration.inputs, (work.calibration.labels == ORDINARY).flatten()
    moved: dict[str, list[float]] = {}
    ratios: dict[int, float] = {}
    for name in work.linears:
        read = inputs.read[name]
        if id(read) not in ratios:
            rows = read.rows[ordinary[read.places[:, 0]]]
            ratios[id(read)] = quantile(rows.abs(), sparsity) / inputs.quantile(name, sparsity)
        moved.setdefault(name.rsplit(".", 1)[1], []).append(ratios[id(read)])
    return [Shift(sparsity, role, float(np.mean(r)), min(r), max(r)) for role, r in moved.items()]


def spending(work: Work, variant: Variant) -> Spending:
    """The bytes of a variant, and what spends them."""
    plan = plan_of(work, variant)
    return Spending(
        work.linears, plan, _factors(work, variant, plan), work.calibration, variant.way,
        variant.sparse_from,
    )  # fmt: skip


def _factors(work: Work, variant: Variant, plan: Plan) -> Factors:
    if variant.method == "teal":
        return {}
    own = variant.way if variant.way in ALLOCATED else ""
    key = f"{variant.method} {variant.sparsity} {own}"
    if key not in work.factors:
        found = {}
        for name, linear in work.linears.items():
            setting, inputs = plan[name], work.calibration.inputs
            rank = setting.rank(*linear.weight.shape)
            threshold = inputs.thresholds(name, linear.weight, setting)
            found[name] = down_up(
                linear.weight, rank, setting.factors, inputs.rows(name), threshold
            )
        work.factors = {key: found}
    return work.factors[key]
