"""Claims of R-Sparse on accuracy, perplexity and speed: tables 1 to 4, figures 5 to 7."""

from experiments.ledger.claim import Claim

CLAIMS = (
    Claim(
        "r-sparse/table-1/near-dense",
        "At 40 and 50% sparsity R-Sparse answers nearly as well as the dense model.",
        "r-sparse-table-1",
    ),
    Claim(
        "r-sparse/table-1/cats",
        "R-Sparse does better than CATS at the same sparsity.",
        "r-sparse-table-1",
    ),
    Claim(
        "r-sparse/table-1/griffin",
        "R-Sparse does better than GRIFFIN at the same sparsity.",
        "r-sparse-table-1",
    ),
    Claim(
        "r-sparse/table-1/relu",
        "R-Sparse does better than ReLU in the place of SiLU without training.",
        "r-sparse-table-1",
    ),
    Claim(
        "r-sparse/table-2/accuracy",
        "R-Sparse at 50% answers nearly as well with INT4 weights of GPTQ (about 2.3 points less).",
        "r-sparse-table-2",
    ),
    Claim(
        "r-sparse/table-2/together",
        "INT4 weights cost R-Sparse about as much as they cost the dense model.",
        "r-sparse-table-2",
    ),
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
    Claim(
        "r-sparse/table-4/searched",
        "A searched recipe does better than the same recipe everywhere.",
        "r-sparse-table-4",
    ),
    Claim(
        "r-sparse/table-4/grows",
        "What the search gains grows with sparsity.",
        "r-sparse-table-4",
    ),
    Claim(
        "r-sparse/figure-5/better",
        "From 30 to 70% R-Sparse does better than CATS and GRIFFIN.",
        "r-sparse-figure-5",
    ),
    Claim(
        "r-sparse/figure-5/kept",
        "Up to 50% sparsity R-Sparse leaves the perplexity nearly as it is.",
        "r-sparse-figure-5",
    ),
    Claim(
        "r-sparse/figure-5/rouge",
        "Up to 50% sparsity R-Sparse leaves the ROUGE-L of summaries nearly as it is.",
        "r-sparse-figure-5",
        needs="XSum, and a model that summarises",
    ),
    Claim(
        "r-sparse/figure-6/faster",
        "Decoding at 50% sparsity is faster than dense decoding, end to end.",
        "r-sparse-figure-6",
    ),
    Claim(
        "r-sparse/figure-6/forty",
        "Decoding at 50% sparsity in float32 is at least 40% faster than dense decoding.",
        "r-sparse-figure-6",
    ),
    Claim(
        "r-sparse/figure-6/gpu",
        "On an A6000 in float32 decoding at 50% sparsity is 40 to 43% faster.",
        "r-sparse-figure-6",
        needs="a GPU",
    ),
    Claim(
        "r-sparse/figure-7/better",
        "R-Sparse does better than GRIFFIN after the same prompt.",
        "r-sparse-figure-7",
    ),
    Claim(
        "r-sparse/figure-7/prompt",
        "The neurons that GRIFFIN takes from the prompt do better than as many at random.",
        "r-sparse-figure-7",
    ),
)
