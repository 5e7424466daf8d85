"""Claims of A3."""

from experiments.ledger.claim import Claim

CLAIMS = (
    Claim(
        "a3/table/svd",
        "At an equal budget A3 predicts better than an SVD of every matrix.",
        "a3-table",
    ),
    Claim(
        "a3/table/metric",
        "What A3 keeps matters: by its inputs' moments it predicts better than without them.",
        "a3-table",
    ),
)
