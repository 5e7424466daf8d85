"""Claims of Corlay's thesis on sink heads (its abstract: the text is not public)."""

from experiments.ledger.claim import Claim

CLAIMS = tuple(
    Claim(f"corlay/{key}", says, "corlay")
    for key, says in {
        "abstract/kept": "With k = 10 columns in sink heads of well chosen layers, 91% of the "
        "accuracy is kept.",
        "abstract/bos": "The columns in which the first token is largest are those to keep.",
        "abstract/layers": "Which layers are pruned matters.",
    }.items()
)
