"""Every claim of every paper with what was found here: the ledger's rows."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from experiments.findings import Finding, Verdict
from experiments.ledger.claim import Claim
from experiments.ledger.record import Record

VERDICTS: tuple[Verdict, ...] = ("shown", "not shown", "contradicted", "untested")


class Row(NamedTuple):
    """A claim, and one of its cases; finding and record are None where nobody has looked."""

    claim: Claim
    finding: Finding | None = None
    record: Record | None = None

    @property
    def verdict(self) -> Verdict:
        """Of the finding; untested without one."""
        return self.finding.verdict if self.finding else "untested"

    @property
    def why(self) -> str:
        """Why it is untested; empty where it is not."""
        if self.verdict != "untested":
            return ""
        if self.finding and self.finding.note:
            return self.finding.note
        return f"needs {self.claim.needs}" if self.claim.needs else "no run of it is kept"

    @property
    def model(self) -> str:
        """What was looked at: the model, or the toy."""
        return str(self.record.inputs.get("model") or "the toy") if self.record else ""

    def plain(self) -> dict[str, Any]:
        """The row as JSON: everything that is known of it."""
        f, r = self.finding, self.record
        return {
            "paper": self.claim.paper,
            "claim": self.claim.key,
            "says": self.claim.says,
            "experiment": self.claim.experiment,
            "case": f.case if f else "",
            "verdict": self.verdict,
            "why": self.why,
            "effect": f.effect._asdict() if f and f.effect else None,
            "unit": f.unit if f else "",
            "over": f.over if f else "",
            "claimed": f.claimed._asdict() if f else None,
            "control": f.control if f else "",
            "note": f.note if f else "",
            "model": self.model,
            "model_sha256": r.inputs.get("model_sha256") if r else None,
            "text": r.inputs.get("text") if r else None,
            "text_sha256": r.inputs.get("text_sha256") if r else None,
            "command": r.command if r else f"ctr experiment {self.claim.experiment}",
            "preset": r.preset if r else "",
            "commit": r.commit if r else "",
            "date": r.date if r else "",
            "kind": r.kind if r else "",
            "marks": list(r.marks) if r else [],
        }


def rows(claims: Iterable[Claim], records: Iterable[Record]) -> list[Row]:
    """In the order of the claims: each with all its cases, or one row that says untested.

    Where a run of another preset is kept too (the paper's own), its cases follow.
    """
    by_claim: dict[str, list[Row]] = {claim.key: [] for claim in claims}
    known = {claim.key: claim for claim in claims}
    for record in records:
        for finding in record.findings:
            if finding.claim in known:
                by_claim[finding.claim].append(Row(known[finding.claim], finding, record))
    return [row for key, found in by_claim.items() for row in found or [Row(known[key])]]


def judged(cases: Sequence[Row]) -> str:
    """One word for a claim with several cases: theirs where they agree, else "mixed".

    Cases that could not be tested do not count where others could.
    """
    found = {row.verdict for row in cases if row.verdict != "untested"}
    if not found:
        return "untested"
    return found.pop() if len(found) == 1 else "mixed"
