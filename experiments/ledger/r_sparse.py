"""Claims of R-Sparse on accuracy, perplexity and speed: tables 1 to 4, figures 5 to 7."""

from experiments.ledger.claim import Claim

CLAIMS = (
    Claim(
        "r-sparse/table-3/sparse-only",
        "Channels with 5% of the budget in low rank do better than channels alone, at 50%.",
        "r-sparse-table-3",
    ),
    Claim(
        "r-sparse/table-3/low-rank-only",
        "Channels with 5% of the budget in low rank do better than low rank alone, at 50%.",
        "r-sparse-table-3",
    ),
)
