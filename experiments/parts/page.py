"""The first section of every page: the claims, what was found, and the verdict."""

from collections.abc import Sequence

from experiments.findings import Finding
from experiments.report import Section, Table


def found(findings: Sequence[Finding]) -> Section:
    """A row a finding; the verdict follows from effect and claim alone."""
    from experiments.ledger.claims import CLAIMS

    rows = [
        (
            CLAIMS[f.claim].says,
            f.case,
            f"{f.effect} {f.unit}" if f.effect else f.note,
            str(f.claimed),
            str(f.effect.n) + f" {f.over}" if f.effect else "–",
            f.control,
            f.verdict,
        )
        for f in findings
    ]
    columns = ("claim", "case", "found", "claimed", "n", "control", "verdict")
    caption = (
        "Shown: the whole 95% interval has the claimed values; contradicted: none of it has; not "
        "shown: otherwise."
    )
    return Section("What was claimed, and what was found", [], [Table(columns, rows, caption)])
