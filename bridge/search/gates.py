"""Gated linears of any setting, at the price of a look-up: what thousands of trials share."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn

from bridge.decode.factors import down_up
from bridge.decode.gated import Gated
from bridge.decode.inputs import Inputs, calibrate, column_scale, levelled
from bridge.decode.phase import Phase
from bridge.decode.plan import Factors, Plan, Rule, Setting
from bridge.decode.reading import Ids
from bridge.search.pool import pooled
from bridge.sites import linears, place, show
from mech.errors import BadInput


class Gates:
    """`Gated` linears by name and setting, every token of a sequence gated.

    Thresholds are quantiles of a pool of the entries (`pool`); a recipe's are of all of them.
    Factors are fitted once a linear, at `most` ranks, and cut to the rank of a setting: singular
    vectors are nested. Those of the remainder ("moment") are of the remainder under `base`'s
    threshold, which a trial moves a little; a recipe's are fitted to its own.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, base: Plan):
        self.model, self.linears = model, linears(model)
        self.inputs, self.base, self.phase = inputs, base, Phase(0.0)
        self._pools: dict[tuple[int, str, Rule], Tensor] = {}
        self._factors: dict[tuple[str, Factors], tuple[Tensor, Tensor]] = {}
        self._most: dict[tuple[str, Factors], int] = {}

    def reserve(self, settings: Mapping[str, Setting]) -> None:
        """Fit factors now: up to the ranks of these settings, which later ones may not exceed.

        Before processes are forked, so that they share them.
        """
        for name, setting in settings.items():
            rank = setting.rank(*self.linears[name].weight.shape)
            if rank:
                self._fitted(name, setting.factors, rank)

    def gated(self, name: str, setting: Setting) -> Gated:
        """The linear of that name under that setting; its weight is shared."""
        linear = self.linears[name]
        down = up = None
        rank = setting.rank(*linear.weight.shape)
        if rank:
            down, up = self._fitted(name, setting.factors, rank)
            down, up = down[:, :rank], up[:rank]
        channels = setting.channels(*linear.weight.shape)
        threshold = self._threshold(name, setting)
        return Gated(linear, self.phase, threshold, down, up, channels=channels)

    @contextmanager
    def on(self, plan: Plan) -> Iterator[None]:
        """Inside, the linears of the plan are gated.

        They stay the modules that they are, so that their inputs can be read; only what they
        compute is another's.
        """
        stood = show(self.model, plan)
        found = linears(self.model)
        for name, setting in plan.items():
            vars(found[name])["forward"] = self.gated(name, setting).forward
        try:
            yield
        finally:
            for name in plan:
                del found[name].forward
            place(self.model, stood)

    def settled(self, plan: Plan, batches: Sequence[Ids], keep: int, seed: int = 0) -> "Gates":
        """The same with what linears read while all of them are gated: `plan` is its base.

        Errors of gated linears make the inputs of later ones smaller or larger: a threshold of
        the dense model's inputs reads another share than it was set for.
        """
        with self.on(plan):
            inputs = calibrate(self.model, batches, keep=keep, seed=seed)
        return Gates(self.model, inputs, plan)

    def _threshold(self, name: str, setting: Setting) -> Float[Tensor, " d_in"]:
        weight = self.linears[name].weight
        scale = column_scale(weight) if setting.rule == "column" else None
        rows = self.inputs.rows(name)
        # Linears that read one tensor share its pool where columns do not weigh it.
        key = (rows.data_ptr(), "" if scale is None else name, setting.rule)
        if key not in self._pools:
            size = rows.abs() if scale is None else rows.abs() * scale
            self._pools[key] = pooled(size)
        level = _level(self._pools[key], 1 - setting.channels(*weight.shape))
        return levelled(level, weight.shape[1], scale)

    def _fitted(self, name: str, kind: Factors, rank: int) -> tuple[Tensor, Tensor]:
        if self._most.get((name, kind), 0) < rank:
            weight = self.linears[name].weight.detach()
            if rank > min(weight.shape):
                raise BadInput(f"{name}: rank {rank} of a {tuple(weight.shape)} weight")
            x = threshold = None
            if kind == "moment":
                x = self.inputs.rows(name)
                threshold = self._threshold(name, self.base[name])
            self._factors[name, kind] = down_up(weight.cpu(), rank, kind, x, threshold)
            self._most[name, kind] = rank
        return self._factors[name, kind]


def _level(pool: Float[Tensor, " entries"], share: float) -> float:
    if share <= 0:
        return -1.0
    if share >= 1:
        return float("inf")
    return float(pool[max(0, round(share * len(pool)) - 1)])
