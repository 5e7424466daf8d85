"""What A3 must know of an attention: its sizes, what it can take apart, its heads' moments."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bridge.component import Component
from bridge.methods.a3_forms import Unit, units
from mech.errors import BadInput

Gram = Float[Tensor, "kv_head d_head d_head"]


class Grams(NamedTuple):
    """Second moments of heads' outputs, one matrix a key head; sums or means, all alike.

    query: of q, summed over the query heads that share the key head. key: of k. value: of what
    the pattern makes of the values, z; where several query heads share one value head, of v
    itself, since no single pattern weighs it.
    """

    query: Gram
    key: Gram
    value: Gram


class Heads(NamedTuple):
    """Key heads and the width of a head; query head h reads key head h // (heads / key heads)."""

    n_kv_heads: int
    d_head: int

    def gram(self, x: Float[Tensor, "tokens width"]) -> Gram:
        """Σ_t x_t x_tᵀ of every head, summed over those that share a key head, in float64."""
        heads = x.double().view(len(x), self.n_kv_heads, -1, self.d_head)
        return torch.einsum("tkgd,tkge->kde", heads, heads)


def heads_of(attention: Component) -> Heads:
    """The sizes of an attention that A3 can take apart.

    Raises BadInput, with the widths, where the four matrices are not those of plain heads: an
    output gate inside q_proj, values of another width than keys, heads that do not divide.
    """
    linears, d_head, kv = attention.linears, attention.d_head, attention.n_kv_heads
    q, k, v, o = (*(linears[role].out_features for role in "qkv"), linears["o"].in_features)
    whole = d_head > 0 and kv > 0 and attention.n_heads % kv == 0
    if not (whole and q == o == attention.n_heads * d_head and k == v == kv * d_head):
        raise BadInput(
            f"{attention.names['q']}: q, k, v, o of plain heads of width {d_head} are needed; here "
            f"q, k, v are {q}, {k}, {v} wide and o reads {o}"
        )
    return Heads(kv, d_head)


def check_norms(component: Component, parts: Sequence[str]) -> None:
    """Raises BadInput where a norm stands between the matrices that a part approximates together.

    A norm on q or k (Qwen3, Gemma 3, OLMo 2) divides by the coordinates that would be dropped;
    one on v, z or the neurons (Gemma 3n, BitNet) likewise.
    """
    # OPT's MLP is the block itself, whose norms stand before it and after it.
    if "self_attn" in dict(component.module.named_children()):
        return
    for name, _ in component.module.named_children():
        if "norm" not in name:
            continue
        attention = component.kind == "attention"
        part = ("qk" if name.startswith(("q", "k")) else "ov") if attention else "mlp"
        if part in parts:
            raise BadInput(
                f"layers.{component.layer}: {type(component.module).__name__} has a {name}, which "
                f"mixes the coordinates that A3's {part} would drop: leave {part!r} out of parts"
            )


def rotary_units(attention: Component) -> list[Unit] | None:
    """The coordinates of q and k that go together; None where nothing is rotated.

    Raises BadInput where only some are rotated and the module does not say how many.
    """
    if attention.rotary is None:
        return None
    if attention.rotary != "partial":
        return units(attention.d_head, attention.rotary)
    rotated = getattr(attention.module, "rotary_ndims", None)
    if not isinstance(rotated, int):
        raise BadInput(
            f"layers.{attention.layer}: {type(attention.module).__name__} rotates some of its "
            "coordinates and does not say which, so A3 cannot pair them: leave 'qk' out of parts"
        )
    return units(attention.d_head, "half", rotated)


def white_grams(linears: Mapping[str, nn.Linear], heads: Heads) -> Grams:
    """The moments that white inputs would have, R = I: they make it plain SVD and selection."""
    return Grams(*(heads.gram(linears[role].weight.detach().mT) for role in "qkv"))


def output_gram(o: nn.Linear, heads: Heads) -> Gram:
    """W_o W_oᵀ, summed over the query heads of a key head."""
    return heads.gram(o.weight.detach())


Add = Callable[[str, Tensor], None]


def gram_hooks(attention: Component, heads: Heads, add: Add) -> list[tuple[nn.Module, str, Any]]:
    """Hooks that call add(name, Σ over a batch) with the fields of `Grams`."""
    linears = attention.linears

    def output(name: str):
        return lambda _, __, y: add(name, heads.gram(y.detach().flatten(0, -2)))

    def mixed(_, args, kwargs):
        z = args[0] if args else kwargs["input"]
        add("value", heads.gram(z.detach().flatten(0, -2)))

    hooks = [(linears["q"], "post", output("query")), (linears["k"], "post", output("key"))]
    shared = attention.n_heads > attention.n_kv_heads
    value = (linears["v"], "post", output("value")) if shared else (linears["o"], "pre", mixed)
    return [*hooks, value]
