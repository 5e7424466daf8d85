"""Methods that can be planned for: those of single linears, whose spending is known beforehand."""

METHODS = (
    "magnitude", "wanda", "sparsegpt", "oats", "oats-moment", "sparse-only", "low-rank",
    "low-rank-scaled", "low-rank-moment", "rounding", "gptq", "zeroquant-v2", "lqer",
    "qera-approximate", "qera", "loftq",
)  # fmt: skip
