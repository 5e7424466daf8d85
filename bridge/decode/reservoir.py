"""A uniform sample of rows of a stream whose length nobody knows before it ends."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Reservoir:
    """The `keep` rows of least random key among all that were offered, in the order offered.

    Keys are drawn by the caller: streams that share keys keep the same tokens.
    """

    def __init__(self, keep: int):
        self.keep, self.seen = keep, 0
        self._bound = float("inf")
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def offer(
        self,
        keys: Float[Tensor, " tokens"],
        x: Float[Tensor, "tokens d_in"],
        places: Int[Tensor, "tokens two"],
    ) -> None:
        """Rows in float32, and what says where each stood."""
        self.seen += len(x)
        good = keys < self._bound
        if bool(good.any()):
            rows = x.detach()[good.to(x.device)].float().cpu()
            self._parts.append((keys[good], rows, places[good]))
        if sum(len(keys) for keys, _, _ in self._parts) > 2 * self.keep:
            self._thin()

    def rows(self) -> tuple[Float[Tensor, "tokens d_in"], Int[Tensor, "tokens two"]]:
        """What is kept."""
        self._thin()
        _, rows, places = self._parts[0]
        return rows, places

    def _thin(self) -> None:
        keys, rows, places = (torch.cat(part) for part in zip(*self._parts, strict=True))
        if len(keys) > self.keep:
            bound = keys.kthvalue(self.keep).values
            least = keys <= bound
            keys, rows, places = keys[least], rows[least], places[least]
            self._bound = float(bound)
        self._parts = [(keys, rows, places)]
