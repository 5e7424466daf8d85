"""A3: an analytical low-rank approximation of whole components (arXiv:2505.12942)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from bridge.component import Component
from bridge.methods import a3_heads
from bridge.methods.a3_forms import (
    best_neurons,
    best_units,
    joint,
    neuron_scores,
    unit_scores,
    units,
)
from bridge.methods.a3_heads import Grams, Heads
from bridge.methods.a3_operators import kept_columns, kept_rows, mapped, mapped_input, placed
from bridge.operators import Affine, LinearOperator
from bridge.patterns import exact
from bridge.stream import hooked
from mech.errors import BadInput

PARTS = ("qk", "ov", "mlp")
METRICS = ("moments", "weights", "random")
State = dict[str, Tensor]
Operators = dict[str, LinearOperator | Affine]


@dataclass(frozen=True)
class A3:
    """The best narrower heads and MLP in the metric of their own inputs.

    QK: min ‖R^½ (W_q W_kᵀ - W̃_q W̃_kᵀ) R^½‖_F a head, by SVD where nothing is rotated, else by
    keeping the rotary pairs of the largest λ. OV: min ‖R_p^½ (W_v W_o - W̃_v W̃_o)‖_F by SVD, R_p
    of the pattern-weighted inputs; where query heads share a value head, jointly, with R of the
    inputs. MLP: the neurons of the largest E[h_i²] ‖w_i‖². Query heads of one key head are
    stacked. Every part keeps ⌊(1-ρ) n⌋ of its n coordinates (rounded down to whole pairs), so
    of each matrix at most 1-ρ.

    Heads keep their width: what is dropped is zero, so rotation and attention run unchanged, and
    what a narrower cache would save is not counted. Biases go with their coordinates. Raises
    BadInput, naming the layer, where a norm stands between the matrices (`check_norms`), where
    heads are not plain ones (`heads_of`), and where nothing would be left.
    """

    compression: float = 0.2
    """Share of the parameters that is removed (ρ)."""
    parts: tuple[str, ...] = PARTS
    """What is approximated; the rest stays dense."""
    metric: str = "moments"
    """moments: A3. The controls: weights, as if inputs were white; random: any coordinates."""
    seed: int = 0
    """Of the random control."""

    def __post_init__(self):
        if not 0 < self.compression < 1:
            raise BadInput(f"compression {self.compression}: it must be above 0 and below 1")
        if not self.parts or not set(self.parts) <= set(PARTS):
            raise BadInput(f"parts {self.parts!r}: a tuple of some of {', '.join(PARTS)}")
        if self.metric not in METRICS:
            raise BadInput(f"metric {self.metric!r}: one of {', '.join(METRICS)}")

    @contextmanager
    def watch(self, component: Component) -> Iterator[State]:
        """Sums over tokens: of q qᵀ, k kᵀ and z zᵀ (or v vᵀ) a head; of h² a neuron."""
        a3_heads.check_norms(component, self.parts)
        state: State = {}

        def add(name: str, value: Tensor) -> None:
            state[name] = state[name] + value if name in state else value

        def neurons(_, args, kwargs):
            h = args[0] if args else kwargs["input"]
            add("neuron", h.detach().flatten(0, -2).double().square().sum(0))

        if component.kind == "mlp":
            hooks = [(component.linears["down"], "pre", neurons)]
        else:
            hooks = a3_heads.gram_hooks(component, a3_heads.heads_of(component), add)
        with hooked(hooks):
            yield state

    def __call__(self, component: Component, state: State) -> Mapping[str, LinearOperator | Affine]:
        """Narrower operators of the parts that the component has."""
        if component.kind == "mlp":
            return self._mlp(component, state) if "mlp" in self.parts else {}
        found: Operators = {}
        heads = a3_heads.heads_of(component)
        grams = Grams(state["query"], state["key"], state["value"])
        if self.metric == "weights":
            grams = a3_heads.white_grams(component.linears, heads)
        if "qk" in self.parts:
            found |= self._qk(component, heads, grams)
        if "ov" in self.parts:
            found |= self._ov(component, heads, grams)
        return found

    def _qk(self, component: Component, heads: Heads, grams: Grams) -> Operators:
        q, k = component.linears["q"], component.linears["k"]
        of = a3_heads.rotary_units(component)
        keep = self._keep(heads.d_head, 1 if of is None else max(len(unit) for unit in of))
        if of is None and self.metric != "random":
            maps = joint(grams.query, grams.key, keep)
            operators = {"q": mapped(q, maps.left, heads), "k": mapped(k, maps.right, heads)}
            return _noted(operators, maps.reached, keep)
        of = of or units(heads.d_head, None)
        query, key = (gram.diagonal(dim1=-2, dim2=-1) for gram in (grams.query, grams.key))
        scores = self._scores(component, unit_scores(query, key, of))
        kept = [best_units(row, of, keep) for row in scores]
        return {
            role: kept_rows(linear, placed(kept, linear.out_features, heads))
            for role, linear in (("q", q), ("k", k))
        }

    def _ov(self, component: Component, heads: Heads, grams: Grams) -> Operators:
        v, o = component.linears["v"], component.linears["o"]
        keep = self._keep(heads.d_head)
        if self.metric == "random":
            of = units(heads.d_head, None)
            scores = self._scores(component, grams.value.diagonal(dim1=-2, dim2=-1))
            kept = [best_units(row, of, keep) for row in scores]
            return {
                "v": kept_rows(v, placed(kept, v.out_features, heads)),
                "o": kept_columns(o, placed(kept, o.in_features, heads)),
            }
        maps = joint(grams.value, a3_heads.output_gram(o, heads), keep)
        operators = {"v": mapped(v, maps.left, heads), "o": mapped_input(o, maps.right, heads)}
        return _noted(operators, maps.reached, keep)

    def _mlp(self, component: Component, state: State) -> Operators:
        linears = component.linears
        down = linears["down"].weight.detach()
        moment = state["neuron"] if self.metric == "moments" else torch.ones_like(state["neuron"])
        scores = self._scores(component, neuron_scores(moment, down))
        kept = best_neurons(scores, self._keep(len(scores)))
        narrow = {role: kept_rows(linears[role], kept) for role in linears if role != "down"}
        return {**narrow, "down": kept_columns(linears["down"], kept)}

    def _scores(self, component: Component, scores: Tensor) -> Tensor:
        """λ, or noise for the control."""
        if self.metric != "random":
            return scores
        generator = torch.Generator().manual_seed(self.seed * 100_003 + component.layer)
        noise = torch.rand(scores.shape, generator=generator, dtype=torch.float64)
        return noise.to(scores.device)

    def _keep(self, size: int, unit: int = 1) -> int:
        keep = int((1 - exact(self.compression)) * size / unit) * unit
        if keep < 1:
            raise BadInput(f"compression {self.compression} leaves none of {size}: take less")
        return keep


def _noted(operators: Operators, reached: Tensor, keep: int) -> Operators:
    note = "in other coordinates of its heads: the error of this matrix alone says nothing"
    if short := int((reached < keep).sum()):
        note += (
            f"; {short} of {reached.numel()} heads have fewer than {keep} directions in the "
            f"calibration text (the fewest {int(reached.min())}): the others are zero"
        )
    for operator in operators.values():
        term = operator.term if isinstance(operator, Affine) else operator
        term.note = note
    return operators
