"""The definition, in plain PyTorch; on a GPU the threshold inside it is a kernel."""

from jaxtyping import Float
from torch import Tensor

from ctr_kernels.hard_threshold import hard_threshold

Matrix = Float[Tensor, "d_out d_in"]


def over_relax(
    target: Matrix, low: Matrix, before: Matrix, keep: int, momentum: float, relaxation: float
) -> Matrix:
    """L₋ ← B = Z + η (R - HT_k(R)), Z = L + β (L - L₋), R = A - Z: what the next L approximates.

    A is `target`, L `low`, L₋ `before` (the L of an iteration earlier), k `keep` entries a row,
    β `momentum`, η `relaxation`. β = 0 and η = 1 give A - HT_k(A - L), the plain alternation.
    B takes the memory of `before`, which is returned: three matrices are all there is. Computed
    in the dtype of `target`, rounded to that of `low` and `before`, which may be narrower. Raises
    ValueError where `keep` is not in 0..d_in.
    """
    wide = low.to(target.dtype)
    ahead = wide + momentum * (wide - before.to(target.dtype))
    residual = target - ahead
    dropped = residual - hard_threshold(residual, keep)
    return before.copy_(ahead + relaxation * dropped)
