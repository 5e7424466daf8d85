"""One pass of the dense model over calibration text, and what its linears are given."""

from collections import deque
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bridge.decode.places import HEAD
from bridge.decode.places import head as head_linear
from bridge.sites import linears, place, show
from bridge.stream import evaluating, hooked
from mech.errors import BadInput

Ids = Int[Tensor, "_batch _seq"]
Masks = Sequence[Bool[Tensor, "_batch _seq"]]
Take = Callable[[str, Float[Tensor, "tokens d_in"], Int[Tensor, " tokens"] | None], None]
"""(name, x, which): rows of a batch that a linear reads, and the numbers of these tokens in the
text; None where an expert was given some of them, and does not know which."""


@torch.no_grad()
def read(
    model: nn.Module,
    batches: Sequence[Ids],
    take: Take,
    *,
    select: str = "*",
    head: bool = False,
    share: bool = True,
    exclude: Masks | None = None,
    advance: Callable[[str], None] | None = None,
) -> dict[str, str]:
    """Hand what every linear reads to `take`, once for all that read the same tensor if `share`.

    Gives, by name, the linear that stood for it. Tokens in `exclude` (a mask a batch) are not
    handed on. Raises BadInput where an input is not finite, where masks do not fit, and where
    tokens are to be left out of experts.
    """
    if exclude is not None and [m.shape for m in exclude] != [b.shape for b in batches]:
        raise BadInput("exclude: a mask of every batch's shape, one a batch")
    passing = _Passing(take, share)
    stood = show(model, linears(model, select))
    # Without the head: its logits would be the largest thing in memory, and nobody reads them.
    body = getattr(model, "base_model", model)
    where = next(model.parameters()).device
    try:
        found: dict[str, nn.Module] = dict(linears(model, select))
        if head and body is model:  # a family without a body of its own
            found[HEAD] = head_linear(model)
        with hooked([(m, "pre", passing.hook(n)) for n, m in found.items()]), evaluating(model):
            for number, ids in enumerate(batches):
                passing.begin(ids, None if exclude is None else exclude[number])
                out = body(input_ids=ids.to(where), use_cache=False)
                if head and body is not model:
                    passing.on(HEAD, out.last_hidden_state)
                if advance is not None:
                    advance(f"batch {number + 1} of {len(batches)}")
    finally:
        place(model, stood)
    return passing.follows


class _Passing:
    """Who reads the same tensor as whom, and which tokens of a batch are wanted."""

    def __init__(self, take: Take, share: bool):
        self.take, self.tokens = take, 0
        # Readers of one tensor follow each other closely; more of them would fill the memory.
        self.recent: deque[tuple[Tensor, int, str]] = deque(maxlen=4 if share else 0)
        self.follows: dict[str, str] = {}

    def begin(self, ids: Ids, excluded: Bool[Tensor, "_batch _seq"] | None) -> None:
        self.which = torch.arange(self.tokens, self.tokens + ids.numel())
        self.kept = None if excluded is None else ~excluded.flatten().cpu()
        self.tokens += ids.numel()
        self.recent.clear()

    def hook(self, name: str):
        def reads(_, args, kwargs):
            self.on(name, args[0] if args else kwargs["input"])

        return reads

    def on(self, name: str, x: Tensor) -> None:
        version = x._version
        same = (other for y, v, other in self.recent if y is x and v == version)
        leader = next(same, name)
        if self.follows.setdefault(name, leader) != name:
            return
        self.recent.append((x, version, name))
        flat, which = x.flatten(0, -2), self.which
        if not bool(flat.isfinite().all()):
            raise BadInput(f"{name}: what it reads is not finite; try bfloat16 or float32")
        if len(flat) != len(which):
            if self.kept is not None:
                raise BadInput(f"{name} does not see all tokens: none can be left out of it")
            which = None
        elif self.kept is not None:
            which, flat = which[self.kept], flat[self.kept.to(flat.device)]
        if len(flat):
            self.take(name, flat, which)
