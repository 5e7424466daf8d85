"""Numbers that were measured before there were runs of claims, taken over from the documents.

Each stands with the command that gave it and the commit that wrote it down. They are held, so that
no page can change one, and they are no findings: only an experiment's run has a verdict.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from experiments.ledger.figures import figures, says
from experiments.ledger.record import Held, Record

HERE = Path(__file__).parent
EARLIER, QUESTIONS = HERE / "earlier", HERE / "questions.json"
_CODE = re.compile(r"```.*?```", re.DOTALL)


def held(records: Iterable[Record]) -> Iterator[Held]:
    """Every number with an interval that a page may print."""
    for record in records:
        yield from record.figures
        for finding in record.findings:
            if finding.effect:
                yield Held(f"{finding.claim}, {finding.case}", *finding.effect[:3])
            for figure in figures(finding.control):
                yield Held(f"{finding.claim}, {finding.case}: control", *figure.values())
    for file in sorted(EARLIER.glob("*.json")):
        for row in json.loads(file.read_text(encoding="utf-8"))["figures"]:
            yield Held(row["says"], row["mean"], row["low"], row["high"])
    for row in json.loads(QUESTIONS.read_text(encoding="utf-8")):
        for figure in figures(row["answer"]):
            yield Held(row["question"], *figure.values())


def not_held(pages: Iterable[Path], records: Iterable[Record]) -> list[str]:
    """Every interval of the pages that the ledger does not hold: "FILE:LINE: x [low, high]"."""
    known = np.array([one[1:] for one in held(records)]).reshape(-1, 3)
    return [
        f"{page.name}:{figure.line}: {figure}"
        for page in pages
        for figure in figures(_CODE.sub(_blank, page.read_text(encoding="utf-8")))
        if not says(figure, known)
    ]


def _blank(code: re.Match[str]) -> str:
    return "\n" * code[0].count("\n")  # lines keep their numbers
