"""How every method of `activation` is put into a model, and what it reads there."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from bridge.decode.baselines import cats, greedy, griffin, plans, relu, teal
from bridge.decode.baselines.gated_mlp import GatedMLP, gated_mlps, neurons
from bridge.decode.gated import Gated
from bridge.decode.inputs import Inputs
from bridge.decode.plan import Plan, read_share
from bridge.decode.recipe import Recipe, fit
from bridge.decode.sparsified import sparsified
from experiments.decoding.activation import UNSETTLED
from experiments.decoding.activation_settle import Settling
from mech.errors import BadInput

GRIFFIN = "griffin"
SETTLED = (*plans.UNIFORM, "teal-greedy", "cats", "cats-teal")
"""Methods whose thresholds can be taken again in the sparse model."""
Shapes = Mapping[str, tuple[int, int]]
Entered = Callable[[nn.Module, float], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Given:
    """What a method may ask for: the model, what its linears read, TEAL's greedy paths."""

    model: nn.Module
    shapes: Shapes
    inputs: Callable[[], Inputs]
    paths: Callable[[], list[list[greedy.Raised]]]
    settling: Settling
    phases: int = 4
    seed: int = 0

    def fitted(self, plan: Plan) -> Recipe:
        """A recipe of the plan, settled."""
        return self.settling.recipe(fit(self.model, plan, self.inputs()))

    def unsettled(self) -> "Given":
        """The same for thresholds of the dense model's inputs, as methods are published."""
        return replace(self, settling=replace(self.settling, rounds=0))


@dataclass(frozen=True)
class Made:
    """A method at a sparsity. planned: numbers that a gated token reads, over the dense ones'.

    recipe: linears that are gated by channels. inside: what is entered within; it gives what
    counts neurons, or None. neurons: linears that are read by neuron.
    """

    planned: float
    recipe: Recipe | None = None
    inside: Entered | None = None
    neurons: tuple[str, ...] = ()
    whole: bool = False
    """Nothing is saved: the method shows what is lost."""


def made(given: Given, method: str, sparsity: float) -> Made:
    """`method` at `sparsity`; with the ending "-unsettled" as it is published.

    Raises:
        BadInput: it is not known, or cannot read so little; the message says why.
    """
    known(method)
    if method.endswith(UNSETTLED):
        given, method = given.unsettled(), method.removesuffix(UNSETTLED)
    if method in plans.UNIFORM:
        return of_plan(given, plans.UNIFORM[method](given.shapes, sparsity))
    if method == "teal-signed":
        recipe = fit(given.model, plans.teal(given.shapes, sparsity), given.inputs())
        return Made(1 - sparsity, teal.as_published(recipe, given.inputs()))
    if method == "teal-greedy":
        return of_plan(given, greedy.plan(given.paths(), given.shapes, sparsity))
    if method == "cats":
        return _cats(given, sparsity, sparsity, whole=True)
    if method == "cats-teal":
        return _cats(given, sparsity, sparsity, whole=False)
    if method == GRIFFIN or method.startswith(f"{GRIFFIN}-"):
        return _griffin(given, sparsity, method.removeprefix(GRIFFIN).removeprefix("-") or "topk")
    if method == "relu":
        mlps = gated_mlps(given.model)
        return Made(
            float("nan"),
            inside=lambda model, sparse_from: relu.relufied(model, sparse_from=sparse_from),
            neurons=_parts(mlps, ("up", "down")),
        )
    return _phased(given, sparsity)


def known(method: str) -> None:
    """Refuse what is no method's name.

    Raises:
        BadInput: it is none; the message lists all.
    """
    names = [*SETTLED, "teal-signed", GRIFFIN]
    names += [f"{GRIFFIN}-{mode}" for mode in griffin.MODES] + ["relu", "multi-phase"]
    if method not in names and method.removesuffix(UNSETTLED) not in SETTLED:
        raise BadInput(
            f"no method {method!r}: there are {', '.join(names)}, and of the first {len(SETTLED)} "
            f"NAME{UNSETTLED}"
        )


def of_plan(given: Given, plan: Plan) -> Made:
    """A plan, fitted to the inputs."""
    return Made(read_share(plan, given.shapes), given.fitted(plan))


@dataclass
class Realised:
    """Numbers read by a gated token over the dense ones', as counted inside `applied`."""

    share: float = float("nan")


@contextmanager
def applied(given: Given, made: Made, sparse_from: float) -> Iterator[Realised]:
    """The method in the model; afterwards the model is dense, and the share is known."""
    found, gated, counted = Realised(), {}, None
    with ExitStack() as entered:
        if made.recipe is not None:
            decoding = entered.enter_context(
                sparsified(given.model, made.recipe, sparse_from=sparse_from, count=True,
                           layout="shared")
            )  # fmt: skip
            gated = decoding.gated
        if made.inside is not None:
            counted = entered.enter_context(made.inside(given.model, sparse_from))
        yield found
        found.share = _share(given, made, gated, counted)


def _share(given: Given, made: Made, gated: Mapping[str, Gated], counted: Any) -> float:
    size = {name: d_out * d_in for name, (d_out, d_in) in given.shapes.items()}
    read = 0.0
    for name, numbers in size.items():
        if name in made.neurons:
            read += numbers * _of_neurons(name, counted)
        elif name in gated:
            read += gated[name].flops() / 2
        else:
            read += numbers
    return read / sum(size.values())


def _of_neurons(name: str, counted: Any) -> float:
    if isinstance(counted, griffin.Griffin):
        mlp = name.rpartition(".")[0]
        mask = counted.masks[mlp]
        return counted.counts[mlp] / mask.shape[-1]
    return cast(cats.Cats, counted).reading.share


def _cats(given: Given, sparsity: float, elsewhere: float, *, whole: bool) -> Made:
    """`whole`: attention and gate read whole, as published; else gated by channels at `elsewhere`.

    Then up and down keep 1 - s of their neurons, and every linear reads the same share.
    """
    mlps = gated_mlps(given.model)
    skipped = _parts(mlps, ("up", "down"))
    density, recipe = 1 - elsewhere, None
    if whole:
        density = neurons(mlps, given.shapes, 1 - sparsity, skipped=("up", "down"))
    else:
        rest = [name for name in given.shapes if name not in skipped]
        recipe = fit(given.model, plans.teal(rest, elsewhere), given.inputs())
    densities = dict.fromkeys((mlp.name for mlp in mlps), density)
    levels = cats.thresholds(given.model, given.inputs(), densities)
    levels, recipe = given.settling.cats(levels, densities, recipe)
    return Made(
        1 - sparsity,
        recipe,
        lambda model, sparse_from: cats.cats(model, levels, sparse_from=sparse_from),
        skipped,
    )


def _griffin(given: Given, sparsity: float, mode: str) -> Made:
    mlps = gated_mlps(given.model)
    share = neurons(mlps, given.shapes, 1 - sparsity, skipped=("gate", "up", "down"))
    counts = griffin.whole_counts({mlp.name: mlp.d_mlp for mlp in mlps}, share)
    seed = given.seed

    def inside(model: nn.Module, sparse_from: float) -> AbstractContextManager[griffin.Griffin]:
        return griffin.griffin(
            model, counts, sparse_from=sparse_from, mode=cast(griffin.Mode, mode), seed=seed
        )

    return Made(1 - sparsity, inside=inside, neurons=_parts(mlps, ("gate", "up", "down")))


def _phased(given: Given, sparsity: float) -> Made:
    inputs, found = given.inputs(), {}
    shared: dict[int, relu.Phases] = {}
    for name in given.shapes:
        rows = inputs.rows(name)
        if id(rows) not in shared:
            shared[id(rows)] = relu.phases(rows, sparsity, given.phases)
        found[name] = shared[id(rows)]
    return Made(
        1.0,
        inside=lambda model, sparse_from: relu.multi_phased(model, found, sparse_from=sparse_from),
        whole=True,
    )


def _parts(mlps: list[GatedMLP], roles: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(getattr(mlp, role) for mlp in mlps for role in roles)
