"""A model that decodes sparsely, in place and back."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import nn

from bridge.decode.gated import Gated
from bridge.decode.layout import by_channel
from bridge.decode.phase import Phase
from bridge.decode.places import HEAD, head_of
from bridge.decode.recipe import Recipe
from bridge.opened import Experts
from bridge.sites import operators, place, show
from ctr_kernels.op import Backend
from ctr_kernels.sparse_gemv.rows import Rows
from mech.errors import BadInput

Layout = Literal["rows", "shared"]


class Memory(NamedTuple):
    """Bytes: weights that the dense model has too, and what is there beside them."""

    shared: int
    copied: int


@dataclass
class Decoding:
    """What `sparsified` put into the model."""

    phase: Phase
    gated: dict[str, Gated]
    memory: Memory

    @property
    def tokens_sparse(self) -> float:
        """The share of the tokens run so far that were gated."""
        total = self.phase.dense_tokens + self.phase.sparse_tokens
        return self.phase.sparse_tokens / total if total else 0.0

    @property
    def backends(self) -> dict[str, Backend]:
        """What computes a step of decoding, by name; "reference" is the plain definition."""
        return {n: g.prepared.backend if g.prepared else "reference" for n, g in self.gated.items()}

    @property
    def reasons(self) -> dict[str, str]:
        """Why a linear is left to the definition; only those that are."""
        unbound = "the weights keep their layout"
        told = {n: g.prepared.reason if g.prepared else unbound for n, g in self.gated.items()}
        return {name: told[name] for name, at in self.backends.items() if at == "reference"}

    @property
    def read(self) -> float:
        """Numbers read a gated token over those of the dense linears planned, as counted."""
        numbers = sum(gated.flops() / 2 for gated in self.gated.values())
        return numbers / sum(gated.weight.numel() for gated in self.gated.values())


@contextmanager
def sparsified(
    model: nn.Module,
    recipe: Recipe,
    *,
    sparse_from: float = 1.0,
    layout: Layout | None = None,
    threads: int | None = None,
    count: bool = False,
    rows: Mapping[str, Rows] | None = None,
) -> Iterator[Decoding]:
    """Inside, every linear of the recipe is gated; after, the model is what it was, bit by bit.

    Of a call with T > 1 tokens a sequence the first ⌊T · sparse_from⌋ are dense: 1 is a dense
    prefill (and R-Sparse's decoding), .5 the paper's evaluation, 0 gates every token, which is
    what perplexity is measured with unless said. A call with one token a sequence is a step of
    decoding and gated whole, also where it is a prompt of one token; so `generate` works, with
    any batch. Padding counts as tokens.

    `layout` "rows" lays the weights out by input channel, in place, so that the kernels can be
    bound; "shared" leaves them, and steps of decoding are masked dense products. None: "rows"
    unless sparse_from is 0, where sequences are scored. `rows` decodes the linears it names
    through other rows (int8, four-bit codes), which are there beside the weights; prompts go
    through the weights. With `count` every gated linear counts the channels that it reads.

    Raises BadInput where the recipe is of another model, or of linears that are gated already,
    where `rows` are not of its linears, for a sparse_from outside [0, 1], and for one between in
    a mixture of experts, whose linears do not know the places of their tokens.
    """
    if not 0 <= sparse_from <= 1:
        raise BadInput(f"sparse_from {sparse_from}: a share of the prompt, from 0 to 1")
    _check_free(model, recipe.plan)
    phase = Phase(sparse_from)
    with ExitStack() as back:
        recipe.check(model)
        stood = show(model, recipe.plan)
        back.callback(place, model, stood)
        if 0 < sparse_from < 1 and any(isinstance(m, Experts) for m in model.modules()):
            raise BadInput(
                f"sparse_from {sparse_from}: experts do not know where their tokens stand; use 0 "
                "or 1, or leave them out of the plan"
            )
        linears = recipe.check(model)
        _check_rows(rows or {}, linears)
        gated = {name: Gated.of(recipe, name, m, phase, count=count) for name, m in linears.items()}
        bound, twice = dict(rows or {}), sum(_nbytes(r) for r in (rows or {}).values())
        if layout == "rows" or (layout is None and sparse_from > 0):
            rest = {name: m for name, m in linears.items() if name not in bound}
            own, again = back.enter_context(by_channel(rest))
            bound, twice = own | bound, twice + again
        for name, found in bound.items():
            gated[name].bind(found, threads)
        back.callback(_place, model, dict(linears))
        _place(model, gated)
        back.callback(phase.watching(model).remove)
        factors = sum(b.nbytes for g in gated.values() for b in g.buffers())
        shared = sum(linear.weight.nbytes for linear in linears.values())
        yield Decoding(phase, gated, Memory(shared, twice + factors))


def _check_free(model: nn.Module, names: Iterable[str]) -> None:
    standing: dict[str, nn.Module | None] = {**operators(model), HEAD: head_of(model)[1]}
    for name in names:
        if isinstance(standing.get(name), Gated):
            raise BadInput(f"{name} is gated already: leave the `sparsified` that is open first")


def _check_rows(rows: Mapping[str, Rows], linears: Mapping[str, nn.Linear]) -> None:
    for name, found in rows.items():
        if name not in linears:
            raise BadInput(f"rows of {name}, which the recipe does not plan")
        linear = linears[name]
        shape = (linear.out_features, linear.in_features)
        if (found.d_out, found.d_in) != shape:
            raise BadInput(f"rows of {name} are {found.d_out} x {found.d_in}, the linear {shape}")


def _place(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Put modules at names, the head among them."""
    place(model, {name: m for name, m in modules.items() if name != HEAD})
    if HEAD in modules:
        model.set_submodule(head_of(model)[0], modules[HEAD])


def _nbytes(rows: Rows) -> int:
    return sum(t.nbytes for t in (rows.values, rows.scales, rows.zeros) if t is not None)
