"""The roster of claims: every paper's, in the order of the papers and of their pages."""

from experiments.ledger.a3 import CLAIMS as _A3
from experiments.ledger.catch import CLAIMS as _CATCH
from experiments.ledger.chain import CLAIMS as _CHAIN
from experiments.ledger.claim import Claim
from experiments.ledger.corlay import CLAIMS as _CORLAY
from experiments.ledger.few_shot import CLAIMS as _FEW_SHOT
from experiments.ledger.low_rank import CLAIMS as _LOW_RANK
from experiments.ledger.ours import CLAIMS as _OURS
from experiments.ledger.qera import CLAIMS as _QERA
from experiments.ledger.r_sparse import CLAIMS as _R_SPARSE
from experiments.ledger.r_sparse_structure import CLAIMS as _R_SPARSE_STRUCTURE
from experiments.ledger.secondary import CLAIMS as _SECONDARY

CLAIMS: dict[str, Claim] = {
    claim.key: claim
    for claim in (
        *_LOW_RANK,
        *_CATCH,
        *_R_SPARSE,
        *_R_SPARSE_STRUCTURE,
        *_SECONDARY,
        *_QERA,
        *_A3,
        *_CORLAY,
        *_CHAIN,
        *_FEW_SHOT,
        *_OURS,
    )
}
PAPERS = {
    "low-rank": "Zhang and Papyan 2025, Low-rank is required for pruning LLMs (SLLM workshop)",
    "catch": "Zhang, Khan and Papyan 2025, Catch, tag, release (arXiv:2502.00919, v1 and v2)",
    "r-sparse": "Zhang et al. 2025, R-Sparse (arXiv:2504.19449)",
    "secondary": "Wong et al. 2025, Secondary attention sinks (arXiv:2512.22213)",
    "qera": "Zhang et al. 2024, QERA (arXiv:2410.06040)",
    "a3": "Wong et al. 2025, A3 (arXiv:2505.12942)",
    "corlay": "Corlay, pruning of sink heads (ENSTA thesis, 10853)",
    "ours": "Questions of this project",
}
