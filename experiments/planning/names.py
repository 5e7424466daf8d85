"""Methods that can be planned for: those of single linears, whose spending is known beforehand.

A new one is named here, its operations by shape are a function in `work.py`, its bytes a line of
`workspace.py`; what an operation takes is measured (`ctr plan --measure`).
"""

METHODS = (
    "magnitude", "wanda", "sparsegpt", "oats", "oats-moment", "sparse-only", "low-rank",
    "low-rank-scaled", "low-rank-moment", "rounding", "gptq", "zeroquant-v2", "lqer",
    "qera-approximate", "qera", "loftq",
)  # fmt: skip
