"""The ways that are timed: the same loop with dense linears, the fastest dense, and sparse ones."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from bridge.decode.fast_cache import Held, held
from bridge.decode.fast_linear import Bound, bits, bound, written
from bridge.decode.fast_shape import Shape
from bridge.decode.fast_step import Step
from bridge.decode.gated import Gated
from bridge.decode.recipe import Recipe
from bridge.decode.sparsified import sparsified
from bridge.sites import linears
from ctr_kernels.sparse_gemv.pack import int4_rows, int8_rows
from ctr_kernels.sparse_gemv.rows import Rows
from experiments.decoding.speed_quantised import bind_int4, bind_int8
from experiments.decoding.speed_timing import fastest
from mech.errors import BadInput

Product = Callable[[Tensor], Tensor]
FORMS: dict[str, Callable[[Tensor], Product]] = {
    "F.linear": lambda w: lambda x: nn.functional.linear(x, w),
    "mv": lambda w: lambda x: torch.mv(w, x[0])[None],
    "F.linear by channel": lambda w: _by_channel(w),
}
"""What torch offers for W x, x one row."""
BINDS = {"int8": bind_int8, "int4": bind_int4}
PACKS = {"int8": int8_rows, "int4": int4_rows}


@dataclass
class Way:
    """A loop over tokens, and what it cost and predicted."""

    step: Step
    bytes_read: float
    """A token, of the linears and the head, as planned."""
    layers: list[Held] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    """Seconds in linears, of tokens that were run by `watched`."""
    whole: list[float] = field(default_factory=list)
    """Of the same tokens."""

    def begin(self, cache: DynamicCache) -> None:
        """From a prompt's keys and values, copied."""
        own = DynamicCache()
        for index, layer in enumerate(cache.layers):
            own.update(layer.keys.clone(), layer.values.clone(), index)  # type: ignore[union-attr]
        self.layers = held(own) or []

    def token(self, token: Tensor, following: Tensor) -> None:
        """One step, timed; the loss of what follows it is not."""
        at = torch.tensor([self.layers[0].length])
        started = time.perf_counter()
        logits = self.step(token, self.layers, at)
        self.seconds.append(time.perf_counter() - started)
        loss = nn.functional.cross_entropy(logits.float(), following)
        self.nll.append(float(loss))

    def watched(self, token: Tensor) -> None:
        """One step with a clock around every linear; the token is taken back after it."""
        spent = [0.0]

        def clocked(call: Bound) -> Bound:
            def run() -> np.ndarray:
                started = time.perf_counter()
                y = call()
                spent[0] += time.perf_counter() - started
                return y

            return run

        blocks, head, whole = self.step.blocks, self.step.head, self.step.whole
        self.step.whole = None
        plain = ("before", "between")
        self.step.blocks = [
            block._replace(**{n: clocked(c) for n, c in block._asdict().items() if n not in plain})
            for block in blocks
        ]
        self.step.head = clocked(head)
        at = torch.tensor([self.layers[0].length])
        started = time.perf_counter()
        self.step(token, self.layers, at)
        self.whole.append(time.perf_counter() - started)
        self.inside.append(spent[0])
        self.step.blocks, self.step.head, self.step.whole = blocks, head, whole
        for layer in self.layers:
            layer.advance(-1)

    @property
    def outside(self) -> Float[np.ndarray, " tokens"]:
        """Shares of a token's time that are not in linears."""
        return 1 - np.array(self.inside) / np.array(self.whole)


def dense(model: PreTrainedModel, shape: Shape) -> Way:
    """Linears as the model has them: F.linear on weights stored by output."""
    return Way(Step(model, shape, 1), _dense_bytes(model))


def fastest_dense(model: PreTrainedModel, shape: Shape) -> tuple[Way, dict[str, str]]:
    """For every shape of W the form that torch computes fastest, timed on all matrices of it."""
    alike: dict[tuple[int, int], list[nn.Linear]] = {}
    for linear in _linears(model):
        alike.setdefault((linear.out_features, linear.in_features), []).append(linear)
    chosen: dict[tuple[int, int], str] = {}
    for size, found in alike.items():
        x = torch.randn(1, size[1]).to(shape.dtype)
        calls = {
            name: [_call(form(linear.weight.detach()), x) for linear in found]
            for name, form in FORMS.items()
        }
        chosen[size] = fastest(calls)

    def bind(module: nn.Module, x: Tensor) -> Bound:
        if not isinstance(module, nn.Linear) or module.bias is not None:
            return bound(module, x)
        size = (module.out_features, module.in_features)
        return written(FORMS[chosen[size]](module.weight.detach()), x)

    told = {f"{d_out}x{d_in}": name for (d_out, d_in), name in chosen.items()}
    return Way(Step(model, shape, 1, bind), _dense_bytes(model)), told


def quantised(model: PreTrainedModel, shape: Shape, pack: str) -> Way:
    """Linears by torch's own weight-only product of int8 or int4 codes."""
    share = {"int8": 1.0, "int4": 0.5}[pack]
    read = share * sum(linear.weight.numel() for linear in _linears(model))
    return Way(Step(model, shape, 1, BINDS[pack]), read)


def sparse(model: PreTrainedModel, shape: Shape, recipe: Recipe, pack: str = "weights") -> Way:
    """Linears gated by `recipe`, on the weights themselves or on int8 or int4 rows of them."""
    rows: Mapping[str, Rows] = {}
    if pack != "weights":
        rows = {n: PACKS[pack](m.weight.detach()) for n, m in recipe.check(model).items()}
    with sparsified(model, recipe, rows=rows) as decoding:
        left = set(decoding.backends.values()) - {"cpu"}
        if left:
            name, reason = next(iter(decoding.reasons.items()))
            raise BadInput(f"{name}: no compiled product runs here, nothing to time: {reason}")
        step = Step(model, shape, 1)
        read = sum(g.bytes_moved() for g in model.modules() if isinstance(g, Gated))
        whole = sum(m.weight.nbytes for m in _linears(model))
    return Way(step, read + whole)


def _linears(model: PreTrainedModel) -> list[nn.Linear]:
    head = model.get_output_embeddings()
    found = [*linears(model).values()] if _any(model) else []
    return found + ([head] if isinstance(head, nn.Linear) else [])


def _any(model: nn.Module) -> bool:
    inside = model.get_submodule("model.layers")
    return any(isinstance(m, nn.Linear) for m in inside.modules())


def _dense_bytes(model: PreTrainedModel) -> float:
    return float(sum(m.weight.nbytes for m in _linears(model)))


def _call(product: Product, x: Tensor) -> Callable[[], object]:
    return lambda: bits(product(x))


def _by_channel(weight: Tensor) -> Product:
    turned = weight.mT.contiguous().mT
    return lambda x: nn.functional.linear(x, turned)
