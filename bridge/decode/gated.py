"""A linear that reads the input channels that matter to this token, in the place of a dense one."""

from math import ceil
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bridge.decode.phase import Phase
from bridge.decode.recipe import Recipe
from bridge.operators import Operator
from ctr_kernels.sparse_gemv.prepared import Prepared, prepare
from ctr_kernels.sparse_gemv.reference import active
from ctr_kernels.sparse_gemv.rows import Rows

Factor = Float[Tensor, "_rows _columns"]


class Gated(Operator):
    """y = W (m ∘ x) + A B ((1 - m) ∘ x) + b + b', m_j = 1 where |x_j| > t_j; dense y = W x + b.

    W and b are those of the linear, shared and not copied; A = `up`ᵀ, B = `down`ᵀ, b' = `extra`
    for gated tokens only. `phase` says which tokens are gated. Sequences go by a mask and dense
    products, steps of decoding by the kernel that `bind` found (before it: as sequences).
    """

    weight: Tensor
    bias: Tensor | None
    threshold: Tensor
    down: Tensor | None
    up: Tensor | None
    extra: Tensor | None

    def __init__(
        self,
        linear: nn.Linear,
        phase: Phase,
        threshold: Float[Tensor, " d_in"],
        down: Factor | None = None,
        up: Factor | None = None,
        extra: Float[Tensor, " d_out"] | None = None,
        *,
        channels: float = 1.0,
        count: bool = False,
    ):
        super().__init__()
        self.weight, self.phase = linear.weight, phase
        self.register_parameter("bias", linear.bias)
        like = linear.weight
        # A threshold is float32 whatever the weights are: rounding it would move the mask.
        self.register_buffer("threshold", threshold.to(like.device), persistent=False)
        for name, part in (("down", down), ("up", up), ("extra", extra)):
            placed = None if part is None else part.to(like.device, like.dtype)
            self.register_buffer(name, placed, persistent=False)
        self.channels, self.count = channels, count
        self.prepared: Prepared | None = None
        self.rows: Rows | None = None
        self.reset()
        self.train(linear.training)

    @classmethod
    def of(
        cls, recipe: Recipe, name: str, linear: nn.Linear, phase: Phase, *, count: bool = False
    ) -> "Gated":
        """`linear` as the recipe has it under that name."""
        return cls(
            linear,
            phase,
            recipe.thresholds[name],
            recipe.down.get(name),
            recipe.up.get(name),
            recipe.bias.get(name),
            channels=recipe.plan[name].channels(linear.out_features, linear.in_features),
            count=count,
        )

    def bind(self, rows: Rows, threads: int | None = None) -> Prepared:
        """Decode through `rows`, which say what W says: its transpose, or codes of it."""
        bias = self.bias
        if self.extra is not None:
            bias = self.extra if bias is None else bias + self.extra
        self.rows = rows
        bias = None if bias is None else bias.detach()
        self.prepared = prepare(
            rows,
            self.threshold,
            self.down,
            self.up,
            bias,
            threads=threads,
            x_dtype=self.weight.dtype,
        )
        return self.prepared

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy decodes through its own weight, as this one does."""
        super().__setstate__(state)
        rows, w = self.rows, self.weight.detach().mT
        if rows is None or self.prepared is None or not w.is_contiguous():
            return
        if rows.values.dtype == w.dtype and torch.equal(rows.values, w):
            self.bind(Rows(w, rows.d_out), self.prepared.threads)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        if self.phase.step and self.prepared is not None and not self._differentiated(x):
            if self.count:
                self._counted(self._active(x))
            return self.prepared(x if x.is_contiguous() else x.contiguous())
        return self._plain(x)

    def _differentiated(self, x: Tensor) -> bool:
        return x.requires_grad or (self.weight.requires_grad and torch.is_grad_enabled())

    def _apply(self, fn: Any, recurse: bool = True) -> "Gated":
        threshold = self.threshold
        super()._apply(fn, recurse)
        self.threshold = threshold.to(self.threshold.device)  # float32 whatever the weights become
        return self

    def _plain(self, x: Tensor) -> Tensor:
        """By a mask and dense products."""
        if 0 < self.phase.seq <= self.phase.dense:
            return nn.functional.linear(x, self.weight, self.bias)
        dense = self._dense_tokens(x)
        gated = self._active(x)
        if self.count:
            self._counted(gated if dense is None else gated[~dense.expand(x.shape[:-1])])
        kept = gated if dense is None else gated | dense[..., None]
        y = nn.functional.linear(torch.where(kept, x, 0), self.weight, self.bias)
        if self.down is not None and self.up is not None:
            y = y + (torch.where(kept, 0, x) @ self.down) @ self.up
        if self.extra is not None:
            y = y + (self.extra if dense is None else self.extra * ~dense[..., None])
        return y

    def _dense_tokens(self, x: Tensor) -> Tensor | None:
        """Which tokens of x are dense, a mask of its token axes; None for none.

        Fewer than the call's are its last ones, as a head is given them. Inputs that came
        flattened are the call's tokens in order; some of them (an expert's) are dense or gated
        together, as `sparsified` sees to.
        """
        if self.phase.dense == 0:
            return None
        mask = torch.arange(self.phase.seq, device=x.device) < self.phase.dense
        return mask[-x.shape[-2] :] if x.dim() > 2 else mask.repeat(self.phase.batch)

    def _active(self, x: Tensor) -> Tensor:
        return active(x.reshape(-1, x.shape[-1]), self.threshold).view(x.shape)

    def _counted(self, gated: Tensor) -> None:
        self._kept += gated.sum()
        self._seen += gated.numel()

    def reset(self) -> None:
        """Nothing counted so far."""
        self._kept, self._seen = torch.zeros((), dtype=torch.int64), 0

    @property
    def read(self) -> float:
        """The share of channels that gated tokens read: counted, or as planned before any were."""
        return int(self._kept) / self._seen if self._seen else self.channels

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1]

    @property
    def rank(self) -> int:
        """Of the stand-in; 0 without."""
        return 0 if self.down is None else self.down.shape[1]

    def inner(self) -> int:
        return self.rank

    def parameters_kept(self) -> int:
        return self.weight.numel() + self.rank * sum(self.shape)

    def bits(self) -> int:
        return 8 * self.weight.element_size() * self.parameters_kept() + 32 * self.shape[1]

    def flops(self) -> int:
        """Of a gated token, at the share of channels that is read."""
        return round(2 * self._numbers())

    def bytes_moved(self) -> int:
        """⌈e · numbers⌉ + 4 d_in + e (d_in + d_out + 2 rank): a gated token at batch 1.

        Channels at the share that is read, the factor B for the others, A whole, thresholds in
        float32; e bytes a number of the rows that are read.
        """
        d_out, d_in = self.shape
        width = self.weight.element_size()
        row = width * d_out if self.rows is None else self.rows.row_bytes
        read = self.read * d_in * row + width * self.rank * ((1 - self.read) * d_in + d_out)
        return ceil(read) + 4 * d_in + width * (d_in + d_out + 2 * self.rank)

    def _numbers(self) -> float:
        d_out, d_in = self.shape
        return self.read * d_out * d_in + self.rank * ((1 - self.read) * d_in + d_out)
