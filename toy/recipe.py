"""How to train: what is drawn, what is shown, and how the weights follow."""

from dataclasses import dataclass, replace
from typing import Literal

from toy.optimizers import Optimizer
from toy.tasks import Distribution


@dataclass(frozen=True)
class Recipe:
    """How to train: initial values, data, optimiser. Each entry starts at its value + noise."""

    w_v1: float = -0.5
    """W_V1 starts at this multiple of the identity."""
    w_qk: float = 0.5
    """W_Q2 and W_K2 start at this multiple of the identity."""
    w_v2: float = 0.5
    """W_V2 starts at this multiple of [1, 0]^T."""
    w_noise: float = 0.1
    """Standard deviation of the Gaussian noise on those four matrices."""
    s_tag: float = 5.0
    """The tag of [SEP] starts here."""
    s_tag_noise: float = 0.0
    """Standard deviation around it."""
    s_num_noise: float = 0.1
    """Standard deviation of s_num around 0."""
    data: Distribution = "gaussian"
    """Distribution of the numbers."""
    shortest: int = 16
    """Shortest sequence."""
    longest: int = 32
    """Longest sequence; the others are padded."""
    optimizer: Optimizer = "adam"
    """Update rule."""
    learning_rate: float = 3e-2
    """Step size, or where the cosine starts."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the step size falls; a cosine ends at 0."""
    weight_decay: float = 1e-2
    """Of adamw alone; the others have none."""
    steps: int = 4000
    """Minibatches."""
    batch: int = 64
    """Sequences a minibatch; every seed sees the same ones."""
    seeds: int = 64
    """Initialisations trained side by side."""
    seed: int = 0
    """What all randomness is derived from."""
    checkpoints: int = 40
    """Points at which loss and s_tag are recorded; divides `steps`."""
    warm_up: float = 0.0
    """Share of the steps during which the following pulls act (`toy.warmup`)."""
    lift: float = 0.0
    """Warm-up: s_tag rises by this multiple of the step size."""
    decay_s_num: float = 0.0
    """Warm-up: s_num shrinks by this multiple of the step size."""
    decay_matrices: float = 0.0
    """Warm-up: so do the four matrices."""
    first_data: Distribution = "uniform"
    """Distribution of the numbers at first."""
    first_share: float = 0.0
    """For this share of the steps."""


_PLAIN = Recipe(
    w_v1=0.0, w_qk=0.0, w_v2=0.0, w_noise=0.5, s_tag=0.0, s_tag_noise=1.0, s_num_noise=1.0
)
PRESETS = {
    "diagonal": Recipe(),
    "default-init": _PLAIN,
    "guided": replace(
        _PLAIN,
        steps=3000,
        warm_up=0.2,
        lift=0.5,
        decay_s_num=1.0,
        decay_matrices=1.0,
        first_share=0.6,
    ),
}
"""`diagonal` finds the mechanism; `default-init`, plain Gaussian weights, hardly ever does;
`guided` starts from the very same draw and finds it from most (docs/training.md)."""

INGREDIENTS = ("lift", "decay_s_num", "decay_matrices", "first_share")
"""The fields that make `guided` differ from `default-init` in training; 0 leaves one out."""
