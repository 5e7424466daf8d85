"""GRIFFIN: the neurons that a prompt used most serve its continuation (Dong et al. 2024)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bridge.decode.baselines.gated_mlp import gated_mlps
from bridge.decode.phase import first_gated
from bridge.sites import module
from bridge.stream import hooked
from mech.errors import BadInput

Mode = Literal["topk", "sample", "topk-sample", "random", "magnitude"]
MODES = ("topk", "sample", "topk-sample", "random", "magnitude")
Scores = Float[Tensor, "batch d_mlp"]


def statistic(
    z: Float[Tensor, "batch seq d_mlp"], real: Bool[Tensor, "batch seq"] | None = None
) -> Scores:
    """s_j = ‖(z_tj / ‖z_t‖₂)_t‖₂ over the prompt's tokens t, a row a sequence of the batch.

    Tokens that are not `real` (padding) and tokens with z_t = 0, which say nothing (0/0 in the
    release), are left out.
    """
    z = z.detach().float()
    length = z.norm(dim=-1, keepdim=True)
    relative = torch.where(length > 0, z / length, 0)
    if real is not None:
        relative = relative * real[..., None]
    return relative.norm(dim=1)


def chosen(
    scores: Scores,
    count: int,
    mode: str,
    generator: torch.Generator | None = None,
    static: Float[Tensor, " d_mlp"] | None = None,
) -> Bool[Tensor, "batch d_mlp"]:
    """`count` neurons a sequence.

    topk: largest s_j. sample: without replacement, with odds s_j. topk-sample: half of them the
    largest, the others sampled from the rest. random: any. magnitude: largest `static`, which
    is ‖gate_j‖₂ ‖up_j‖₂ and asks no prompt. Raises BadInput for a count outside 0 to d_mlp and
    an unknown mode.
    """
    batch, d_mlp = scores.shape
    if not 0 <= count <= d_mlp:
        raise BadInput(f"{count} neurons of {d_mlp}")
    top = {"topk": count, "topk-sample": count // 2, "magnitude": count, "sample": 0, "random": 0}
    if mode not in top:
        raise BadInput(f"selection {mode!r}: one of {', '.join(top)}")
    if mode == "magnitude":
        assert static is not None
        scores = static.to(scores).expand(batch, d_mlp)
    if mode == "random":
        scores = torch.ones_like(scores)
    mask = torch.zeros(batch, d_mlp, dtype=torch.bool, device=scores.device)
    best = scores.argsort(dim=-1, descending=True, stable=True)[:, : top[mode]]
    mask.scatter_(1, best, True)
    if top[mode] < count:
        # Gumbel's trick: log-odds with its noise, ranked, are draws without replacement.
        noise = torch.rand(batch, d_mlp, generator=generator).to(scores).clamp(1e-12, 1 - 1e-7)
        keys = (scores + 1e-30).log() - (-noise.log()).log()
        keys = keys.masked_fill(mask, -torch.inf)
        mask.scatter_(1, keys.topk(count - top[mode], dim=-1).indices, True)
    return mask


@dataclass
class Griffin:
    """What `griffin` put in place: the neurons of each MLP that the last prompt chose."""

    counts: dict[str, int]
    masks: dict[str, Bool[Tensor, "batch d_mlp"]]


def whole_counts(mlps: Mapping[str, int], share: float) -> dict[str, int]:
    """Neurons of each MLP, ⌊share of all up to and with it⌋ less what the MLPs before it took.

    Their sum is the budget's to one neuron, which rounding each alone would miss by one a block.
    """
    counts, upto, taken = {}, 0, 0
    for name, d_mlp in mlps.items():
        upto += d_mlp
        counts[name] = min(int(share * upto + 1e-9) - taken, d_mlp)
        taken += counts[name]
    return counts


@contextmanager
def griffin(
    model: nn.Module,
    counts: Mapping[str, int],
    *,
    sparse_from: float = 1.0,
    mode: Mode = "topk",
    seed: int = 0,
) -> Iterator[Griffin]:
    """z ∘ m in every MLP: rows of gate and up and columns of down outside m are not needed.

    Dong et al. 2024, arXiv:2404.01365. The first ⌊T sparse_from⌋ tokens of a pass of T > 1 are
    the prompt: dense, and m is chosen from their z = act(gate x) ∘ up x, a mask a sequence of the
    batch (the release takes one sequence). The others, and tokens that come alone, use m.
    `counts` neurons by name of the MLP. Enter it inside `sparsified`, not around it.

    Raises BadInput where there is no prompt (sparse_from 0), and where tokens come that are not
    the continuation of a prompt.
    """
    if not 0 < sparse_from <= 1:
        raise BadInput(
            f"sparse_from {sparse_from}: GRIFFIN chooses by a prompt: above 0 and at most 1"
        )
    generator = torch.Generator().manual_seed(seed)
    state = Griffin(dict(counts), {})
    real: list[Tensor | None] = [None]

    def asked(_: nn.Module, __: tuple, kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attention_mask")
        real[0] = mask.bool() if isinstance(mask, Tensor) and mask.ndim == 2 else None

    def choose(name: str, prompt: Tensor, static: Tensor | None) -> None:
        where = real[0]
        if where is not None:
            where = where[:, -prompt.shape[1] :] if where.shape[0] == prompt.shape[0] else None
        scores = statistic(prompt, where)
        state.masks[name] = chosen(scores, state.counts[name], mode, generator, static)

    def hook(name: str, static: Tensor | None) -> Any:
        def before(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            z = args[0]
            first = first_gated(z.shape[1], sparse_from)
            if first:
                choose(name, z[:, :first], static)
            elif z.shape[1] > 1:
                raise BadInput(
                    f"{z.shape[1]} tokens, of which sparse_from {sparse_from:g} makes no prompt"
                )
            mask = state.masks.get(name)
            if mask is None or len(mask) != len(z):
                raise BadInput(
                    f"{len(z)} sequences continue, but {0 if mask is None else len(mask)} prompts "
                    "were read: give GRIFFIN prompts of at least two tokens"
                )
            gated = torch.where(mask[:, None], z[:, first:], 0)
            return (torch.cat([z[:, :first], gated], dim=1), *args[1:]), kwargs

        return before

    hooks: list[tuple[nn.Module, str, Any]] = [(model, "pre", asked)]
    for mlp in gated_mlps(model):
        if mlp.name in counts:
            static = None
            if mode == "magnitude":
                norms = (_weight(model, name).norm(dim=1) for name in (mlp.gate, mlp.up))
                static = torch.stack(list(norms)).prod(0)
            hooks.append((module(model, mlp.down), "pre", hook(mlp.name, static)))
    with hooked(hooks):
        yield state


def _weight(model: nn.Module, name: str) -> Tensor:
    found = module(model, name).weight
    assert isinstance(found, Tensor)
    return found.detach().float()
