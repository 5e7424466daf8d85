"""What an error in the output of a linear costs in nats, to second order: one backward pass."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bridge.sites import linears
from bridge.stream import evaluating, hooked
from mech.blocks import decoder_blocks
from mech.errors import BadInput


class Seen(NamedTuple):
    """One token a row. x: what a linear read. g: the gradient of the loss by what it wrote.

    The loss is the sum over all tokens of -log p(label), labels drawn from the model's own p.
    """

    x: Float[Tensor, "tokens d_in"]
    g: Float[Tensor, "tokens d_out"]

    def cost(self, error: Float[Tensor, "tokens d_out"]) -> float:
        """½ E_t (g_tᵀ e_t)², nats a token: what an error e of the output costs.

        A Gauss-Newton estimate of KL(dense ‖ changed): labels drawn from p make E g gᵀ Fisher's
        matrix of the output (Amari 1998), here of one token at a time and along its own error,
        so that errors that the rest of the model does not see cost nothing.
        """
        return float((self.g * error).sum(dim=1).double().square().mean() / 2)


def sensitivity(
    model: nn.Module,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    *,
    select: str = "*",
    seed: int = 0,
    advance: Callable[[str], None] | None = None,
) -> dict[str, Seen]:
    """x and g of every linear over `batches`: one forward and one backward pass of each.

    Linears that read one tensor share its rows. Memory: 4 (d_in + d_out) bytes a token and
    linear. Raises BadInput where a gradient is not finite.
    """
    chosen = linears(model, select)
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, list[Tensor]] = {name: [] for name in chosen}
    grads: dict[str, list[Tensor]] = {name: [] for name in chosen}
    hooks = [(decoder_blocks(model)[0], "pre", _leaf)]
    for name, linear in chosen.items():
        hooks += [(linear, "pre", _reader(rows[name])), (linear, "post", _gradient(grads[name]))]
    with hooked(hooks), evaluating(model), _frozen(model), torch.enable_grad():
        for number, ids in enumerate(batches):
            logits = model(input_ids=ids, use_cache=False).logits.flatten(0, 1).float()
            with torch.no_grad():
                labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
            nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
            if advance is not None:
                advance(f"batch {number + 1} of {len(batches)}")
    return _joined(rows, grads)


def _joined(
    rows: Mapping[str, Sequence[Tensor]], grads: Mapping[str, Sequence[Tensor]]
) -> dict[str, Seen]:
    joined: dict[int, Tensor] = {}
    found = {}
    for name, parts in rows.items():
        g = torch.cat(list(grads[name]))
        if not bool(g.isfinite().all()):
            raise BadInput(f"{name}: its gradient is not finite; try float32")
        key = parts[0].data_ptr()
        if key not in joined:
            joined[key] = torch.cat([part.flatten(0, -2) for part in parts]).float()
        found[name] = Seen(joined[key], g)
    return found


def _leaf(_, args, kwargs):
    """The stream before the first block begins the graph: embeddings need no gradient."""
    stream = args[0] if args else kwargs["hidden_states"]
    leaf = stream.detach().requires_grad_(True)
    if args:
        return (leaf, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": leaf}


def _reader(into: list[Tensor]) -> Callable:
    # Not cloned: the tensor that q, k and v share stays one tensor.
    return lambda _, args, kwargs: into.append((args[0] if args else kwargs["input"]).detach())


def _gradient(into: list[Tensor]) -> Callable:
    def after(_, __, output: Tensor) -> None:
        output.register_hook(lambda g: into.append(g.detach().flatten(0, -2).float()))

    return after


@contextmanager
def _frozen(model: nn.Module):
    """No weight asks for its gradient inside; asking again after."""
    asking = [p for p in model.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)
