"""Column pruning of sink heads (Corlay, bibnum.ensta.fr/10853): q and k from k channels alone.

The abstract says: of the heads that specialise in the first token's sink, keep the k columns of
W_q, W_k that the BOS component is largest in. What it leaves open is fixed here: the BOS
component is of what W_q and W_k read, so after the norm; rotation, and a norm on queries or
keys, come after the pruned product and need no change; a key head goes only with all of its
query heads.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from bridge.component import Component
from bridge.methods.a3_heads import heads_of
from bridge.operators import Dense, LinearOperator, Stack
from bridge.sliced import Sliced
from bridge.stream import hooked
from mech.capture import capture_blocks
from mech.errors import BadInput
from mech.probes import sinks
from mech.probes.specialised import LEAST, kept

BY = ("bos", "mean", "random")
Head = tuple[int, int]
State = dict[str, Tensor]


def first_token_sinks(
    model: PreTrainedModel,
    batches: Iterable[Int[Tensor, "_batch _seq"]],
    *,
    epsilon: float = 0.3,
) -> Bool[np.ndarray, "prompts layer head"]:
    """α_first > ε of every prompt (a row of a batch) and query head, α of equation 1.

    Errors as for `mech.capture.capture_blocks`.
    """
    found = [
        np.stack(capture_blocks(model, tokens, lambda b: sinks.score(b.received)[..., 0]))
        for tokens in batches
    ]
    return (np.concatenate(found, axis=1) > epsilon).swapaxes(0, 1)


def specialised(
    has: Bool[np.ndarray, "prompts layer head"],
    *,
    layers: Sequence[int] | None = None,
    least: float = LEAST,
) -> tuple[Head, ...]:
    """(layer, query head) of the heads that keep the sink in at least `least` of the prompts.

    Of `layers` alone where they are given. Raises BadInput where there is none.
    """
    share = kept(has).share
    found = tuple(
        (int(layer), int(head))
        for layer, head in np.argwhere(share >= least)
        if layers is None or layer in layers
    )
    if not found:
        raise BadInput(
            f"no head of these layers keeps a first-token sink in {least:.0%} of {len(has)} "
            "prompts: choose other layers, a lower epsilon or a lower share"
        )
    return found


@dataclass(frozen=True)
class SinkHeads:
    """q_h = W_q,h[:, J] x[J] + b and k likewise, J the `columns` channels of the largest |x_BOS|.

    x is what W_q and W_k read, x_BOS that of the first token of a window (mean of |x| over the
    windows, which all have the same where they begin with BOS). J is one set a layer. Only
    `heads`, pairs (layer, query head) as `specialised` gives them, are pruned; a key head where
    all query heads that read it are, so that no other head sees another key. A chosen query
    head whose key head stays reads whole keys with a pruned query. W_v and W_o stay.

    Raises BadInput, naming the layer, where heads are not plain ones, where a head or more
    columns than there are is asked for, and where the inputs come without windows.
    """

    heads: tuple[Head, ...]
    """(layer, query head), from 0."""
    columns: int = 10
    """How many input channels are left (k)."""
    by: str = "bos"
    """bos: Corlay. The controls: mean (the largest E|x_j| over all tokens), random."""
    seed: int = 0
    """Of the random columns."""

    def __post_init__(self):
        if not self.heads:
            raise BadInput("no heads to prune: `specialised` finds them")
        if self.columns < 1:
            raise BadInput(f"columns {self.columns}: at least one")
        if self.by not in BY:
            raise BadInput(f"by {self.by!r}: one of {', '.join(BY)}")

    @contextmanager
    def watch(self, component: Component) -> Iterator[State]:
        """Σ |x| over the first tokens, and over all tokens."""
        state: State = {}

        def read(_, args, kwargs):
            x = (args[0] if args else kwargs["input"]).detach().double().abs()
            if x.ndim != 3:
                raise BadInput(f"{component.names['q']} reads {tuple(x.shape)}: not whole windows")
            for name, total in (("bos", x[:, 0].sum(0)), ("mean", x.sum((0, 1)))):
                state[name] = state[name] + total if name in state else total

        here = component.kind == "attention"
        with hooked([(component.linears["q"], "pre", read)] if here else []):
            yield state

    def __call__(self, component: Component, state: State) -> Mapping[str, LinearOperator]:
        """Operators for q, and for k where a key head goes; nothing where no head is chosen."""
        chosen = {head for layer, head in self.heads if layer == component.layer}
        if component.kind != "attention" or not chosen:
            return {}
        if max(chosen) >= component.n_heads or min(chosen) < 0:
            raise BadInput(
                f"layers.{component.layer} has heads 0 to {component.n_heads - 1}: there is no "
                f"head {max(chosen) if max(chosen) >= component.n_heads else min(chosen)}"
            )
        heads_of(component)
        group = component.n_heads // component.n_kv_heads
        query = [head in chosen for head in range(component.n_heads)]
        key = [all(query[kv * group : (kv + 1) * group]) for kv in range(component.n_kv_heads)]
        columns = self._columns(component, state)
        found = {"q": pruned(component.linears["q"], query, columns)}
        if any(key):
            found["k"] = pruned(component.linears["k"], key, columns)
        return found

    def _columns(self, component: Component, state: State) -> Int[Tensor, " columns"]:
        d_in = component.linears["q"].in_features
        if self.columns > d_in:
            raise BadInput(f"columns {self.columns}: {component.names['q']} reads {d_in}")
        if self.by == "random":
            generator = torch.Generator().manual_seed(self.seed * 100_003 + component.layer)
            order = torch.randperm(d_in, generator=generator).to(
                component.linears["q"].weight.device
            )
        else:
            order = torch.sort(state[self.by], descending=True, stable=True).indices
        return order[: self.columns].sort().values.to(component.linears["q"].weight.device)


def pruned(
    linear: nn.Linear, heads: Sequence[bool], columns: Int[Tensor, " columns"]
) -> LinearOperator:
    """The linear with the rows of the marked heads left only in `columns`; the others whole."""
    weight, height = linear.weight.detach(), linear.out_features // len(heads)
    parts: list[LinearOperator] = []
    start = 0
    for mark, run in groupby(heads):
        stop = start + height * len(list(run))
        rows = weight[start:stop]
        shape = (stop - start, linear.in_features)
        parts.append(
            Sliced(rows[:, columns], shape=shape, columns=columns) if mark else Dense(rows)
        )
        start = stop
    return parts[0] if len(parts) == 1 else Stack(parts)
