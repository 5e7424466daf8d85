"""Every method, by name. One file each; adding one is a file and a line."""

import difflib
from collections.abc import Callable

from bridge.method import ComponentMethod, Method
from bridge.methods.a3 import A3
from bridge.methods.gptq import GPTQ
from bridge.methods.loftq import LoftQ
from bridge.methods.low_rank import MomentLowRank, PlainLowRank, ScaledLowRank
from bridge.methods.lqer import LQER
from bridge.methods.magnitude import Magnitude
from bridge.methods.oats import OATS
from bridge.methods.oats_moment import MomentOATS
from bridge.methods.qera import QERA, QERAApproximate
from bridge.methods.rounding import Rounding
from bridge.methods.sparse_only import SparseOnly
from bridge.methods.sparsegpt import SparseGPT
from bridge.methods.wanda import Wanda
from bridge.methods.zeroquant import ZeroQuantV2
from mech.errors import BadInput

METHODS: dict[str, Callable[..., Method]] = {
    "magnitude": Magnitude,
    "wanda": Wanda,
    "oats": OATS,
    "sparsegpt": SparseGPT,
    "oats-moment": MomentOATS,
    "sparse-only": SparseOnly,
    "low-rank": PlainLowRank,
    "low-rank-scaled": ScaledLowRank,
    "low-rank-moment": MomentLowRank,
    "rounding": Rounding,
    "gptq": GPTQ,
    "zeroquant-v2": ZeroQuantV2,
    "lqer": LQER,
    "qera-approximate": QERAApproximate,
    "qera": QERA,
    "loftq": LoftQ,
}

COMPONENT_METHODS: dict[str, Callable[..., ComponentMethod]] = {"a3": A3}
"""Methods of a whole attention or MLP."""


def method(name: str) -> Callable[..., Method | ComponentMethod]:
    """The class of that name. Raises BadInput with the nearest names where there is none.

    Examples:
        >>> method("oats")(compression=0.6).rank_ratio
        0.25
    """
    every = METHODS | COMPONENT_METHODS
    if name in every:
        return every[name]
    near = difflib.get_close_matches(name.lower(), every, n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    raise BadInput(f"no method called {name!r}{guess} (there are {', '.join(every)})")
