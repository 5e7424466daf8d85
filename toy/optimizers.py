"""Update rules by name; every one is a function of a single seed, so that seeds stay apart."""

from collections.abc import Callable
from typing import Literal

import optax

Optimizer = Literal["adam", "adamw", "sgd", "sign", "muon"]

OPTIMIZERS: dict[Optimizer, Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "sgd": optax.sgd,
    "sign": optax.sign_sgd,
    "muon": optax.contrib.muon,
}
"""`sign` moves every entry by the step size; `muon` turns the momentum of a matrix into a nearly
orthogonal one (Jordan 2024) and leaves s_num and s_tag to Adam. `adamw` needs its decay as well."""


def optimizer(
    name: Optimizer, rate: optax.ScalarOrSchedule, weight_decay: float
) -> optax.GradientTransformation:
    """w <- w + update(gradient): the rule called `name`; only adamw decays the weights."""
    if name == "adamw":
        return optax.adamw(rate, weight_decay=weight_decay)
    return OPTIMIZERS[name](rate)
