"""Claims of On the existence and behaviour of secondary attention sinks."""

from experiments.ledger.claim import Claim

CLAIMS = tuple(
    Claim(f"secondary/{key}", says, "secondary-sinks")
    for key, says in {
        "1/middle": "Secondary sinks arise mostly in the middle layers.",
        "1/mlp": "One MLP forms them: without what it writes they draw little attention.",
        "1/aligned": "That MLP maps them onto the direction of the primary sink.",
        "2/score": "The norm that the MLP gives them sets how much attention they draw.",
        "2/lifetime": "The norm that the MLP gives them sets for how many layers they last.",
        "3/weakens": "The primary sink is weaker in the middle layers.",
        "3/coincides": "The primary sink weakens where secondary sinks are.",
    }.items()
)
