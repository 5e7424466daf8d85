"""The one attention function that stands in for a model's own, to read it and to change it.

transformers' AttentionInterface calls it, so no model file is patched. It computes the model's
attention exactly, without a T × T matrix, hands the call to whoever reads in this context, and
the heads' output to whoever edits it.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import NamedTuple, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedConfig,
    PreTrainedModel,
)

from ctr_kernels.sink_mass import SinkMass, sink_mass
from mech.errors import BadInput
from mech.masks import dense_intervals, interval_mask

NAME = "mech_standing"


class Call(NamedTuple):
    """One call of attention, as `Heads` in tensors on the model's device."""

    layer: int | None
    query: Float[Tensor, "batch head seq d_key"]
    key: Float[Tensor, "batch kv_head key d_key"]
    value: Float[Tensor, "batch kv_head key d_head"]
    lse: Float[Tensor, "batch head seq"]
    low: Int[Tensor, "#batch seq"]
    high: Int[Tensor, "#batch seq"]
    scaling: float
    softcap: float | None
    sink: Float[Tensor, " head"] | None


# z [batch, head, seq, d_head] to z of the same shape and dtype; it must not write into its input.
Edit = Callable[[Tensor, Call], Tensor]

# Called with the call, what the op found, and z after all edits.
Reader = Callable[[Call, SinkMass, Tensor], None]


class _Edits(NamedTuple):
    """The edits of one model, by layer; `modules` says whose attention is meant."""

    modules: frozenset[int]
    by_layer: Mapping[int, Sequence[Edit]]


class _Reading(NamedTuple):
    """Who reads which model's attention; no reader: whoever read before does not."""

    modules: frozenset[int]
    reader: Reader | None


# The last one reads. Ends are taken out where they are: those of generators may cross.
_readings: ContextVar[tuple[_Reading, ...]] = ContextVar("mech_readings", default=())
_edits: ContextVar[tuple[_Edits, ...]] = ContextVar("mech_edits", default=())


@contextmanager
def reading(model: PreTrainedModel, reader: Reader) -> Iterator[None]:
    """Inside, in this context, every attention of `model`, and of no other, is shown to `reader`.

    Gradients do not pass through attention inside: asked for, they are refused with BadInput.
    """
    with standing_in(model), _last(_Reading(_modules(model), reader)):
        yield


def unread() -> AbstractContextManager[None]:
    """Inside, in this context, nobody reads: a pass of the reader's own is not the one it reads."""
    return _last(_Reading(frozenset(), None))


@contextmanager
def _last(mine: _Reading) -> Iterator[None]:
    _readings.set((*_readings.get(), mine))
    try:
        yield
    finally:
        _readings.set(tuple(other for other in _readings.get() if other is not mine))


@contextmanager
def editing(model: PreTrainedModel, by_layer: Mapping[int, Sequence[Edit]]) -> Iterator[None]:
    """Inside, in this context, z of layer l is edit(z, call) for every edit of by_layer[l].

    Edits of an outer `editing` come first. No weight is touched, and the model's attention is its
    own again afterwards.
    """
    mine = _Edits(_modules(model), by_layer)
    with standing_in(model):
        _edits.set((*_edits.get(), mine))
        try:
            yield
        finally:
            _edits.set(tuple(other for other in _edits.get() if other is not mine))


def _modules(model: PreTrainedModel) -> frozenset[int]:
    return frozenset(id(module) for module in model.modules())


def current_reader() -> Reader | None:
    """Who reads in this context: a hook of another capture must keep silent."""
    readings = _readings.get()
    return readings[-1].reader if readings else None


_lock = threading.Lock()
# id of a configuration -> the configuration, its own implementation, how many stand in.
_held: dict[int, tuple[PreTrainedConfig, str | None, int]] = {}


@contextmanager
def standing_in(model: PreTrainedModel) -> Iterator[None]:
    """Every attention of `model` goes through `attention` inside, and its own again after.

    Counted, so that captures may nest and may run in several threads on one model.
    """
    found = (getattr(module, "config", None) for module in model.modules())
    configs = list({id(c): c for c in found if isinstance(c, PreTrainedConfig)}.values())
    with _lock:
        # All are noted before any is set: setting a configuration sets those nested in it.
        for config in configs:
            _, own, count = _held.get(id(config), (config, config._attn_implementation, 0))
            _held[id(config)] = (config, own, count + 1)
        for config in configs:
            config._attn_implementation = NAME
    try:
        yield
    finally:
        with _lock:
            _put_back(configs)


def _put_back(configs: list[PreTrainedConfig]) -> None:
    # The outer configurations come first, so that those nested in them are set last.
    for config in configs:
        _, own, count = _held.pop(id(config))
        if count > 1:
            _held[id(config)] = (config, own, count - 1)
        else:
            config._attn_implementation = own


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """softmax(cap(scaling · QKᵀ) + mask, s_aux) V, as transformers asks for it."""
    for name in ("position_bias", "head_mask"):
        if kwargs.get(name) is not None:
            raise BadInput(
                f"{type(module).__name__} passes `{name}` to its attention: such a pattern "
                "cannot be read yet"
            )
    low, high = _interval(module, query, key, attention_mask)
    scale: float = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    s_aux = None if s_aux is None else s_aux.detach()
    found = sink_mass(
        query, key, value, scaling=scale, low=low, high=high, softcap=softcap, sink=s_aux
    )
    layer = getattr(module, "layer_idx", None)
    call = Call(layer, query, key, value, found.lse, low, high, scale, softcap, s_aux)
    assert found.z is not None  # values were given
    z = _edited(module, found.z, call)
    reader = current_reader()
    # Models may share a configuration: another one's attention comes here too.
    if reader is not None and id(module) in _readings.get()[-1].modules:
        reader(call, found, z)
    z = z.to(query.dtype).transpose(1, 2).contiguous()
    return _WithoutGradient.apply(z, query, key, value), None


class _WithoutGradient(torch.autograd.Function):
    """z, of which no gradient can be had: the kernels have none, and to leave it out is wrong."""

    @staticmethod
    def forward(ctx: object, z: Tensor, *_: Tensor) -> Tensor:
        """z itself."""
        return z.view_as(z)

    @staticmethod
    def backward(ctx: object, *_: Tensor) -> NoReturn:
        """Raises BadInput."""
        raise BadInput(
            "attention that is read or edited has no gradients: call the model under "
            "torch.no_grad(), or differentiate outside of `reading` and `editing`"
        )


def _edited(module: nn.Module, z: Tensor, call: Call) -> Tensor:
    mine = [edits for edits in _edits.get() if id(module) in edits.modules]
    if mine and call.layer is None:
        raise BadInput(f"{type(module).__name__} does not know its layer: it cannot be edited")
    for edits in mine:
        for edit in edits.by_layer.get(call.layer or 0, ()):
            z = edit(z, call)
    return z


def _interval(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    if mask is None:
        n_queries, n_keys = query.shape[2], key.shape[2]
        at = torch.arange(n_queries, device=query.device)[None]
        causal = getattr(module, "is_causal", True)
        last = at + (n_keys - n_queries) if causal else torch.full_like(at, n_keys - 1)
        return torch.zeros_like(at), last
    if mask.dtype == torch.bool or mask.is_floating_point():
        mask = dense_intervals(mask)
    return mask[:, 0, :, 0], mask[:, 0, :, 1]


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, interval_mask)
