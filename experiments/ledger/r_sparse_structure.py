"""Claims of R-Sparse about what it rests on: contributions, left-out inputs as biases."""

from experiments.ledger.claim import Claim

CLAIMS = (
    Claim(
        "r-sparse/figure-1/corner",
        "Few input channels and few singular components hold most of the contributions.",
        "r-sparse-figure-1-and-3",
    ),
    Claim(
        "r-sparse/figure-1/structure",
        "That is a property of the model, beyond what sorting alone gives of random numbers.",
        "r-sparse-figure-1-and-3",
    ),
    Claim(
        "r-sparse/figure-3/components",
        "At one budget, channels with few components for the rest lose less than channels alone.",
        "r-sparse-figure-1-and-3",
    ),
    Claim(
        "r-sparse/figure-3/directions",
        "The leading components hold what small channels add, more than random directions do.",
        "r-sparse-figure-1-and-3",
    ),
    Claim(
        "r-sparse/figure-2/recovers",
        "Two constants in place of the inputs that a threshold leaves out win back most of it.",
        "r-sparse-figure-2",
    ),
    Claim(
        "r-sparse/figure-2/bias",
        "What is left out acts as a bias: one fixed bias a linear wins back most of it.",
        "r-sparse-figure-2",
    ),
    Claim(
        "r-sparse/stable-rank/low",
        "The biases that left-out inputs add have a stable rank of about a tenth of their width.",
        "r-sparse-stable-rank",
    ),
    Claim(
        "r-sparse/stable-rank/structure",
        "That is lower than for random numbers, and than the weight alone makes it.",
        "r-sparse-stable-rank",
    ),
    Claim(
        "r-sparse/stable-rank/rest",
        "What is left out is nearer to low rank than the whole output (implied by its use).",
        "r-sparse-stable-rank",
    ),
    Claim(
        "r-sparse/figure-8/samples",
        "The map of contributions of a linear is the same over samples of text.",
        "r-sparse-figures-8-and-9",
    ),
    Claim(
        "r-sparse/figure-9/domains",
        "The map of contributions of a linear is the same over domains of text.",
        "r-sparse-figures-8-and-9",
    ),
    Claim(
        "r-sparse/figure-9/thresholds",
        "Thresholds calibrated on one domain serve the others.",
        "r-sparse-figures-8-and-9",
    ),
)
