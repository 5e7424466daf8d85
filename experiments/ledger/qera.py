"""Claims of QERA."""

from experiments.ledger.claim import Claim

CLAIMS = (
    Claim(
        "qera/ptq/exact",
        "At equal rank QERA-exact predicts better than ZeroQuant-V2, LQER and QERA-approximate.",
        "qera-table",
    ),
    Claim(
        "qera/ptq/approximate",
        "At equal rank QERA-approximate predicts better than LQER.",
        "qera-table",
    ),
    Claim(
        "qera/ptq/bits",
        "At equal storage the low-rank term is better spent than more bits a code.",
        "qera-table",
    ),
    Claim(
        "qera/init/start",
        "An adapter that starts from QERA predicts better before training than from LoftQ or zero.",
        "qera-init",
    ),
    Claim(
        "qera/init/tuned",
        "After as many steps it still predicts better than from LoftQ or zero (QLoRA).",
        "qera-init",
    ),
)
