"""Claims of this project's own questions: what its documents say and a number can refute.

Claims of few-shot answers and of the chain have files of their own.
"""

from experiments.ledger.claim import Claim

CLAIMS = (
    Claim(
        "ours/tags/written",
        "What a sink caught can be told from a head's output, better than from random segments.",
        "tags",
    ),
    Claim(
        "ours/tags/used",
        "Removing all that sinks write in the blocks of later sinks costs loss.",
        "tags",
    ),
    Claim(
        "ours/tags/parked",
        "Blocking the sinks in those blocks, so that attention must go elsewhere, costs loss.",
        "tags",
    ),
    Claim(
        "ours/rank/sinks",
        "Sink heads' W_Q W_K^T has fewer effective directions than other heads'.",
        "worlds",
    ),
    Claim(
        "ours/terms/amount",
        "A plain sparse W_Q, W_K keeps more first-token sinks than OATS' sparse term of as many "
        "nonzeros: losing the sinks is about what was removed, not about being sparse.",
        "terms",
    ),
    Claim(
        "ours/terms/direction",
        "Of equal amounts removed, the top component carries more first-token sinks than a random "
        "component of its norm.",
        "terms",
    ),
    Claim(
        "ours/protect/sinks",
        "Compression that keeps the means of what sinks read keeps more later sinks, at equal "
        "budget.",
        "protect",
    ),
    Claim(
        "ours/protect/loss",
        "… and it predicts better than the plain method.",
        "protect",
    ),
    Claim(
        "ours/protect/knowing",
        "… and better than the mean of ordinary tokens alone, which knows no sinks.",
        "protect",
    ),
    Claim(
        "ours/moment/perplexity",
        "OATS with the whole second moment has a lower perplexity than OATS by definition, at "
        "equal budget.",
        "moment",
    ),
    Claim(
        "ours/fast/error",
        "The fast loop of OATS reaches the scaled error of 80 full SVDs.",
        "oats",
    ),
    Claim(
        "ours/search/plain",
        "A searched plan of channels predicts better than TEAL's uniform one at equal bytes.",
        "search",
    ),
    Claim(
        "ours/sparse-sinks/dense",
        "Reading sinks whole keeps more later sinks than plain TEAL, at equal bytes.",
        "sparse-sinks",
    ),
    Claim(
        "ours/sparse-sinks/loss",
        "… and predicts better.",
        "sparse-sinks",
    ),
    Claim(
        "ours/decode/faster",
        "Decoding that reads half of the weights is faster than the fastest dense form.",
        "decode",
    ),
    Claim(
        "ours/scan/slower",
        "Reading every sink of a model costs less than half of a plain forward more.",
        "scan",
    ),
    Claim(
        "ours/training/guided",
        "The guided recipe finds the mechanism from a default draw in most seeds.",
        "toy train",
    ),
)
