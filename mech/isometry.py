"""Vectors of no meaning, as long and at the same angles as those that they stand for."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mech.errors import BadInput

# Of a drawn direction, squared: less than this is rounding and no direction that is left.
LEFT = 1e-12


def turned(
    value: Float[Tensor, "batch head sink d_head"],
    named: Bool[Tensor, "batch 1 sink"],
    metric: Float[Tensor, "head d_head d_head"],
    drawn: Float[Tensor, "head sink d_head"],
) -> Float[Tensor, "batch head sink d_head"]:
    """u_s with ⟨u_s, u_t⟩ = ⟨v_s, v_t⟩ and ⟨u_s, v_t⟩ = 0 for all named s and t of a head.

    ⟨x, y⟩ = x · metric · y, in the stream where metric = W_O W_Oᵀ. So |Σ w_s u_s| = |Σ w_s v_s|
    for every w: as large a change at every token, with nothing of any tag in it. U = M^½ N^-½ R,
    R the drawn vectors less their part in the span of V, M and N the Gram matrices of V and R.
    Places that are not `named` are 0 and change nothing of the others. Raises BadInput where a
    head's tags leave no room for as many vectors that are orthogonal to them.
    """
    named = named[..., None]
    metric = metric.double()
    value, drawn = (torch.where(named, x.double(), 0.0) for x in (value, drawn))
    inner = value @ metric @ value.mT
    across = drawn @ metric @ value.mT
    rest = drawn - across @ torch.linalg.pinv(inner, hermitian=True) @ value
    # What is not named has norm 1 and is orthogonal to all: it drops out.
    fill = torch.diag_embed((~named[..., 0]).double())
    size, turn = torch.linalg.eigh(rest @ metric @ rest.mT + fill)
    whole = torch.linalg.vecdot(drawn @ metric, drawn) + (~named[..., 0]).double()
    if bool((size < LEFT * whole.amin(dim=-1, keepdim=True)).any()):
        raise BadInput(
            f"tags of {value.shape[2]} sinks in heads of {value.shape[3]}: no direction is left "
            "that is orthogonal to them all; name fewer sinks"
        )
    return _root(inner) @ (turn / size.sqrt()[..., None, :]) @ turn.mT @ rest


def _root(gram: Float[Tensor, "*any sink sink"]) -> Float[Tensor, "*any sink sink"]:
    size, turn = torch.linalg.eigh(gram)
    return (turn * size.clamp(min=0).sqrt()[..., None, :]) @ turn.mT
