"""Gates that know the sinks, and gates that do not, each fitted to read the same on average."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bridge.decode.inputs import Inputs, column_scale, levelled, quantile
from bridge.decode.plan import Plan, Setting
from bridge.sink_tokens import ORDINARY
from experiments.decoding.gates import Keep

FLOOR = 0.5  # of a plan's channels: a token that reads fewer of them is starved
ALWAYS = ("always", "always-random")
RULES = ("top", "floor", "random", "noise")
EXACT = ("top", "random", "noise")
"""Rules that read what is asked whatever they are given, or as thresholds elsewhere do."""
Factors = Mapping[str, tuple[Float[Tensor, "d_in rank"], Float[Tensor, "rank d_out"]]]


@dataclass(frozen=True)
class Calibration:
    """Of the dense model: what linears read, what every token of that text is, what is massive."""

    inputs: Inputs
    labels: Int[Tensor, "windows seq"]
    massive: Sequence[int]
    """Dimensions of the stream that hold massive activations."""

    def gated(self, way: str, sparse_from: float) -> tuple[Bool[Tensor, " tokens"], float]:
        """The tokens that gates see in `way`, and the share of tokens that stay dense for it.

        Both among the tokens that are sparsified at all, those from sparse_from on.
        """
        seq = self.labels.shape[1]
        late = torch.arange(seq).expand_as(self.labels) >= int(seq * sparse_from)
        dense = dense_tokens(way, self.labels) & late
        share = float(dense.sum() / late.sum())
        return (late & ~dense).flatten(), share


def dense_tokens(way: str, labels: Int[Tensor, "rows seq"]) -> Bool[Tensor, "rows seq"]:
    """What `way` reads whole: the first token, all sinks of the dense model, or as many others."""
    sinks = labels != ORDINARY
    if way == "sinks":
        return sinks
    if way == "first":
        return sinks & (torch.arange(labels.shape[1]) == 0)
    if way != "tokens":
        return torch.zeros_like(sinks)
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(labels.shape, generator=generator).masked_fill(sinks, 2)
    order = draws.argsort(dim=1).argsort(dim=1)
    return order < sinks.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Spending:
    """A way of spending a plan's bytes: what gates read, by linear, and how they are fitted."""

    linears: Mapping[str, nn.Linear]
    plan: Plan
    factors: Factors
    calibration: Calibration
    way: str
    sparse_from: float

    def channels(self) -> dict[str, float]:
        """The share that a gated token reads, by linear: tokens that stay dense are paid for.

        With f the share of tokens that stay dense and l that of the factors:
        c' = (1 - s - f) / (1 - f) - l.
        """
        _, dense = self.calibration.gated(self.way, self.sparse_from)
        return {
            name: float(np.clip((1 - setting.sparsity - dense) / (1 - dense) - low_rank, 0, 1))
            for name, setting, low_rank in self._low_rank()
        }

    def keeps(self, asked: Mapping[str, float]) -> dict[str, Keep]:
        """A gate a linear that reads `asked` of the channels of what the dense model reads."""
        seen, _ = self.calibration.gated(self.way, self.sparse_from)
        levels: dict[tuple[int, str, float], float] = {}
        return {name: self._keep(name, asked[name], seen, levels) for name in self.linears}

    def _low_rank(self) -> Iterator[tuple[str, Setting, float]]:
        for name, linear in self.linears.items():
            setting = self.plan[name]
            d_out, d_in = linear.weight.shape
            yield name, setting, 1 - setting.sparsity - setting.channels(d_out, d_in)

    def _keep(
        self,
        name: str,
        channels: float,
        seen: Bool[Tensor, " tokens"],
        levels: dict[tuple[int, str, float], float],
    ) -> Keep:
        weight, setting = self.linears[name].weight, self.plan[name]
        read = self.calibration.inputs.read[name]
        scale = column_scale(weight) if setting.rule == "column" else None
        always = _always(name, weight.shape[1], self.way, self.calibration.massive)
        count = round(channels * weight.shape[1])
        key = (id(read), "" if setting.rule == "magnitude" else name, channels)
        if key not in levels:
            size = read.rows[seen[read.places[:, 0]]].abs()
            size = size if scale is None else size * scale
            size[:, always] = torch.inf
            levels[key] = quantile(size, 1 - channels)
        threshold = levelled(levels[key], weight.shape[1], scale)
        threshold[always] = -1.0
        down, up = self.factors.get(name, (None, None))
        rule = self.way if self.way in RULES else "threshold"
        return Keep(rule, threshold, count, FLOOR * count, channels, down, up)


def _always(name: str, d_in: int, way: str, massive: Sequence[int]) -> list[int]:
    """Channels that every token reads: massive dimensions of what reads the stream, or random."""
    if way not in ALWAYS or name.endswith(("o_proj", "down_proj")):
        return []
    if way == "always":
        return list(massive)
    return np.random.default_rng(0).choice(d_in, len(massive), replace=False).tolist()
