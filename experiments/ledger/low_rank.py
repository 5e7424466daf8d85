"""Claims of Low-rank is required for pruning LLMs."""

from experiments.ledger.claim import Claim

CLAIMS = (
    Claim(
        "low-rank/figure-2/fewer",
        "Sparse pruning leaves fewer attention sinks than the dense model has.",
        "low-rank-figure-2",
    ),
    Claim(
        "low-rank/figure-2/oats",
        "Sparse plus low rank (OATS) leaves more attention sinks than sparse pruning.",
        "low-rank-figure-2",
    ),
    Claim(
        "low-rank/figure-2/kept",
        "Sparse plus low rank (OATS) keeps more of the dense model's own sinks than sparse "
        "pruning does.",
        "low-rank-figure-2",
    ),
    Claim(
        "low-rank/figure-3/closer",
        "OATS is closer to the dense weights than sparse pruning that keeps as many numbers.",
        "low-rank-figure-3",
    ),
    Claim(
        "low-rank/table-1/more",
        "OATS' low-rank term alone has more attention sinks than its sparse term alone.",
        "low-rank-table-1",
    ),
    Claim(
        "low-rank/table-1/own",
        "The low-rank term alone keeps the dense model's own sinks, the sparse term alone loses "
        "them.",
        "low-rank-table-1",
    ),
    Claim(
        "low-rank/table-1/required",
        "Sparse matrices lose the sinks that a low-rank term keeps: low rank is required.",
        "low-rank-table-1",
    ),
    Claim(
        "low-rank/figure-4/dense",
        "Heads of the dense model write alike into the tokens that one sink caught.",
        "low-rank-figure-4",
    ),
    Claim(
        "low-rank/figure-4/lost",
        "Sparse pruning loses the segments that sinks make in the outputs of heads.",
        "low-rank-figure-4",
    ),
    Claim(
        "low-rank/figure-4/kept",
        "OATS keeps more of those segments than sparse pruning.",
        "low-rank-figure-4",
    ),
    Claim(
        "low-rank/figure-1/attention",
        "Heads attend to the sinks with the low-rank term alone, and less with the sparse term.",
        "low-rank-figure-1",
    ),
    Claim(
        "low-rank/figure-1/segments",
        "Outputs of heads segment by sink with the low-rank term alone, less with the sparse.",
        "low-rank-figure-1",
    ),
    Claim(
        "low-rank/figure-5/less",
        "Sparse pruned models gain less from k examples than the dense model.",
        "low-rank-figure-5",
    ),
    Claim(
        "low-rank/figure-5/oats",
        "OATS leaves a larger gain from k examples than sparse pruning.",
        "low-rank-figure-5",
    ),
)
