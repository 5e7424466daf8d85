"""What the chain from low rank to few-shot says, link by link: questions of this project.

The papers state the links one by one; nobody measured them together.
"""

from experiments.ledger.claim import Claim

_NAMES = {
    "low-rank": "Taking the low-rank part out of W_Q, W_K",
    "outliers": "Zeroing massive activations",
    "sinks": "Blocking sinks in the early layers",
    "tags": "Removing what sinks write in the early layers",
    "segments": "Erasing the direction that tells who caught a token",
}
_LATER = {
    "outliers": "shrinks massive activations",
    "sinks": "costs sinks",
    "tags": "ungroups heads' outputs",
    "segments": "makes a token's sink unreadable in the stream",
    "loss": "raises the loss on text",
    "few-shot": "costs few-shot accuracy",
}
_PAIRS = (
    ("low-rank", "outliers"),
    ("low-rank", "sinks"),
    ("outliers", "sinks"),
    ("sinks", "tags"),
    ("tags", "segments"),
    *((broken, end) for broken in _NAMES for end in ("loss", "few-shot")),
)
_THROUGH = (
    ("low-rank", "outliers"),
    ("low-rank", "sinks"),
    ("low-rank", "tags"),
    ("outliers", "sinks"),
    ("outliers", "tags"),
    ("sinks", "outliers"),
    ("sinks", "tags"),
    ("tags", "segments"),
)
CLAIMS = (
    *(
        Claim(
            f"ours/chain/{broken}-{later}",
            f"{_NAMES[broken]} {_LATER[later]}, beyond a control of equal size.",
            "chain",
        )
        for broken, later in _PAIRS
    ),
    *(
        Claim(
            f"ours/chain/{broken}-through-{mediator}",
            f"{_NAMES[broken]}: more than half of what it does later goes through {mediator}.",
            "chain",
        )
        for broken, mediator in _THROUGH
    ),
    Claim(
        "ours/chain/planted-effects",
        "Positive control: where the chain is planted, every link's effect is found.",
        "chain",
    ),
    Claim(
        "ours/chain/planted-through",
        "Positive control: where the chain is planted, effects are found to go through it.",
        "chain",
    ),
    Claim(
        "ours/chain/planted-not-through",
        "Negative control: nothing is found to go through what is not between.",
        "chain",
    ),
)
