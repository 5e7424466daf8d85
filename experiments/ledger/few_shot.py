"""Claims on few-shot answers that a small model can show."""

from experiments.ledger.claim import Claim

CLAIMS = (
    Claim(
        "ours/few-shot/gain",
        "The dense model answers more items with examples before them than without.",
        "few-shot",
    ),
    Claim(
        "ours/few-shot/answers",
        "The gain is due to the examples' answers: with wrong ones it is smaller.",
        "few-shot",
    ),
    Claim(
        "ours/few-shot/sparse",
        "Sparse pruning leaves a smaller gain from examples than the dense model has.",
        "few-shot",
    ),
    Claim(
        "ours/few-shot/oats",
        "Sparse plus low rank (OATS) leaves a larger gain from examples than sparse pruning.",
        "few-shot",
    ),
)
