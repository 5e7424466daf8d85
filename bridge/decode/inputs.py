"""What linears read on calibration text: raw rows, from which every threshold can be taken."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bridge.decode.plan import Setting
from bridge.decode.reading import Ids, Masks, read
from bridge.decode.reservoir import Reservoir
from mech.errors import BadInput


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
        share = 1 - setting.channels(*weight.shape)
        size = column_scale(weight) if setting.rule == "column" else None
        return levelled(self.quantile(name, share, size), weight.shape[1], size)


def column_scale(weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, " d_in"]:
    """‖W_:j‖₂, in float32 on the CPU."""
    return torch.linalg.vector_norm(weight.detach().float(), dim=0).cpu()


def levelled(
    level: float, d_in: int, scale: Float[Tensor, " d_in"] | None
) -> Float[Tensor, " d_in"]:
    """t_j such that |x_j| > t_j where |x_j| c_j > t; every channel is kept at t = -1."""
    if scale is None or level < 0:
        return torch.full((d_in,), level)
    # A column of zeros adds nothing, and 0 / 0 would keep it.
    return (level / scale).masked_fill(scale == 0, float("inf"))


def quantile(values: Float[Tensor, "*shape"], share: float) -> float:
    """The ⌈share n⌉-th smallest of n numbers; -1 at share 0, infinity at share 1."""
    if share >= 1:
        return float("inf")
    # A share that is a whole number of entries but for the last bit is that number.
    rank = -int(-(share * values.numel() - 1e-6) // 1)
    return -1.0 if rank < 1 else float(values.flatten().kthvalue(rank).values)


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
    places = torch.cat(
        [torch.arange(ids.shape[1]).repeat(len(ids)) for ids in batches] or [torch.zeros(0).long()]
    )
    drawn = torch.Generator().manual_seed(seed)
    every = torch.rand(len(places), generator=drawn, dtype=torch.float64)
    # An expert's keys are its own: it does not know which tokens it was given.
    other = torch.Generator().manual_seed(seed)
    reservoirs: dict[str, Reservoir] = {}

    def take(name: str, x: Tensor, which: Tensor | None) -> None:
        if which is None:
            keys = torch.rand(len(x), generator=other, dtype=torch.float64)
            where = torch.full((len(x), 2), -1)
        else:
            keys, where = every[which], torch.stack([which, places[which]], 1)
        reservoirs.setdefault(name, Reservoir(keep)).offer(keys, x, where)

    follows = read(model, batches, take, select=select, head=head, exclude=exclude, advance=advance)
    if not reservoirs:
        raise BadInput("there is no calibration token to keep: give more text")
    own = {name: Read(*found.rows(), seen=found.seen) for name, found in reservoirs.items()}
    return Inputs({name: own[leader] for name, leader in follows.items() if leader in own})
