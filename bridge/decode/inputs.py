"""What linears read on calibration text: raw rows, from which every threshold can be taken."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bridge.decode.places import HEAD
from bridge.decode.plan import Setting
from bridge.decode.reservoir import Reservoir
from bridge.sites import linears, place, show
from bridge.stream import evaluating, hooked
from mech.errors import BadInput

Ids = Int[Tensor, "_batch _seq"]
Masks = Sequence[Bool[Tensor, "_batch _seq"]]


@dataclass(frozen=True)
class Read:
    """A sample of what some linears read: X, one row a token; where each token stood.

    places: number of the token in the text, and its position in its sequence (-1, -1 where an
    expert was given some of the tokens and does not know which). seen: tokens that reached them.
    """

    rows: Float[Tensor, "tokens d_in"]
    places: Int[Tensor, "tokens two"]
    seen: int


@dataclass(frozen=True)
class Inputs:
    """Samples by the linear's name; linears that read the same tensor share one."""

    read: Mapping[str, Read]

    def rows(self, name: str) -> Float[Tensor, "tokens d_in"]:
        """X of a linear, float32. Raises BadInput where none is there."""
        found = self.read.get(name)
        if found is None:
            known = ", ".join(list(self.read)[:3])
            raise BadInput(
                f"{name}: no calibration token reached it (there are {known}); calibrate on more "
                "text, or select it"
            )
        return found.rows

    def quantile(
        self, name: str, share: float, scale: Float[Tensor, " d_in"] | None = None
    ) -> float:
        """The least t with |x_tj| c_j ≤ t for ⌈share · n⌉ of the n entries; -1 for none of them.

        Exact on the sample, pooled over tokens and channels, c = `scale` or 1. share 1: infinity,
        because the largest entry of the sample is not the largest of all.
        """
        size = self.rows(name).abs()
        return quantile(size if scale is None else size * scale.to(size), share)

    def thresholds(
        self, name: str, weight: Float[Tensor, "d_out d_in"], setting: Setting
    ) -> Float[Tensor, " d_in"]:
        """t_j of `setting`'s rule: |x_j| > t_j for its share of the channels, on average.

        magnitude: one t for all (TEAL). column: t_j = t / ‖W_:j‖, t the quantile of
        |x_j| ‖W_:j‖ (the release of R-Sparse).
        """
        d_out, d_in = weight.shape
        share = 1 - setting.channels(d_out, d_in)
        if setting.rule == "magnitude":
            return torch.full((d_in,), self.quantile(name, share))
        size = weight.detach().float().norm(dim=0).cpu()
        level = self.quantile(name, share, size)
        if level < 0:
            return torch.full((d_in,), level)
        # A column of zeros adds nothing, and 0 / 0 would keep it.
        return (level / size).masked_fill(size == 0, float("inf"))


def quantile(values: Float[Tensor, "*shape"], share: float) -> float:
    """The ⌈share n⌉-th smallest of n numbers; -1 at share 0, infinity at share 1."""
    if share >= 1:
        return float("inf")
    # A share that is a whole number of entries but for the last bit is that number.
    rank = -int(-(share * values.numel() - 1e-6) // 1)
    return -1.0 if rank < 1 else float(values.flatten().kthvalue(rank).values)


@torch.no_grad()
def calibrate(
    model: nn.Module,
    batches: Sequence[Ids],
    *,
    select: str = "*",
    keep: int = 2048,
    seed: int = 0,
    advance: Callable[[str], None] | None = None,
    exclude: Masks | None = None,
    head: bool = False,
) -> Inputs:
    """What the dense model's linears read over `batches`: `keep` tokens at most, uniform, seeded.

    All linears that see every token keep the same ones. With `exclude` (a mask a batch) the
    masked tokens are left out of the samples, not of the attention. With `head` the output
    head's inputs are there too, under the name "head". Memory: 4 · keep · d_in bytes for every
    tensor that is read; `bridge.decode.histogram` needs none that grows with the text.

    Raises BadInput where an input is not finite, where there is no token to keep, and where
    tokens are to be excluded from experts, which do not know what tokens they see.
    """
    if exclude is not None and len(exclude) != len(batches):
        raise BadInput(f"{len(exclude)} masks of excluded tokens for {len(batches)} batches")
    stood = show(model, linears(model, select))
    sampling = _Sampling(keep, seed)
    body = getattr(model, "base_model", model)
    where = next(model.parameters()).device
    try:
        hooks = [(m, "pre", sampling.hook(name)) for name, m in linears(model, select).items()]
        with hooked(hooks), evaluating(model):
            for number, ids in enumerate(batches):
                sampling.begin(ids, None if exclude is None else exclude[number])
                out = body(input_ids=ids.to(where), use_cache=False)
                if head:
                    sampling.take(HEAD, out.last_hidden_state)
                if advance is not None:
                    advance(f"batch {number + 1} of {len(batches)}")
    finally:
        place(model, stood)
    return sampling.done()


class _Sampling:
    """Reservoirs by name; of a batch, linears that are given the same tensor share one."""

    def __init__(self, keep: int, seed: int):
        self.keep, self.generator = keep, torch.Generator().manual_seed(seed)
        # An expert draws keys of its own, which must not move those that all others share.
        self.other = torch.Generator().manual_seed(seed)
        self.reservoirs: dict[str, Reservoir] = {}
        self.tokens = 0
        # Readers of one tensor follow each other closely; more of them would fill the memory.
        self.recent: deque[tuple[Tensor, int, str]] = deque(maxlen=4)
        self.follows: dict[str, str] = {}

    def begin(self, ids: Ids, excluded: Bool[Tensor, "_batch _seq"] | None) -> None:
        rows, seq = ids.shape
        if excluded is not None and excluded.shape != ids.shape:
            raise BadInput(f"a mask {tuple(excluded.shape)} for tokens {tuple(ids.shape)}")
        self.keys = torch.rand(ids.numel(), generator=self.generator, dtype=torch.float64)
        number = torch.arange(self.tokens, self.tokens + ids.numel())
        self.places = torch.stack([number, torch.arange(seq).repeat(rows)], 1)
        self.kept = None if excluded is None else ~excluded.flatten().cpu()
        self.tokens += ids.numel()
        self.recent.clear()

    def hook(self, name: str):
        def read(_, args, kwargs):
            self.take(name, args[0] if args else kwargs["input"])

        return read

    def take(self, name: str, x: Tensor) -> None:
        version = x._version
        same = (other for y, v, other in self.recent if y is x and v == version)
        leader = next(same, name)
        if self.follows.setdefault(name, leader) != name:
            return
        self.recent.append((x, version, name))
        flat = x.flatten(0, -2)
        if not bool(flat.isfinite().all()):
            raise BadInput(f"{name}: what it reads is not finite; try bfloat16 or float32")
        keys, places = self.keys, self.places
        if len(flat) != len(keys):
            if self.kept is not None:
                raise BadInput(f"{name} does not see all tokens: none can be left out of it")
            keys = torch.rand(len(flat), generator=self.other, dtype=torch.float64)
            places = torch.full((len(flat), 2), -1)
        elif self.kept is not None:
            keys, places = keys[self.kept], places[self.kept]
            flat = flat[self.kept.to(flat.device)]
        if len(flat):
            self.reservoirs.setdefault(name, Reservoir(self.keep)).offer(keys, flat, places)

    def done(self) -> Inputs:
        if not self.reservoirs:
            raise BadInput("there is no calibration token to keep: give more text")
        own = {n: Read(*r.rows(), seen=r.seen) for n, r in self.reservoirs.items()}
        read = {name: own[leader] for name, leader in self.follows.items() if leader in own}
        return Inputs(read)
