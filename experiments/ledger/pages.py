"""docs/evidence.md and the README's tables, made from the ledger alone."""

import json
from collections.abc import Sequence
from pathlib import Path

from experiments.ledger import record
from experiments.ledger.claims import CLAIMS, PAPERS
from experiments.ledger.record import Record
from experiments.ledger.rows import Row, judged, rows
from experiments.settings import BadOption

ROOT = Path(__file__).parent.parent.parent
EVIDENCE, README = ROOT / "docs" / "evidence.md", ROOT / "README.md"
QUESTIONS = Path(__file__).parent / "questions.json"
_BEGIN, _END = "<!-- made by ctr ledger --write: {} -->", "<!-- end of {} -->"
_JUDGED = ("shown", "mixed", "not shown", "contradicted", "untested")
_INTRODUCTION = """\
# Every claim, and what was found here

Made from the ledger by `ctr ledger --write`; a change by hand fails the tests. More of every row:
`ctr ledger --json`.

A verdict is nobody's choice: *shown* where the whole 95% interval lies in what is claimed,
*contradicted* where none of it does, *not shown* otherwise, *untested* where nothing was measured.
A claim is *mixed* where its cases do not agree. Claimed values come from what the paper says. All
numbers are of the model and the text that stand with their run: a claim that is contradicted here
may hold for the paper's own models, which the paper preset asks. `ctr rerun` asks any of it again
and compares bit for bit.
"""


def write() -> list[Path]:
    """Write evidence.md and the parts of README between markers; the files that were written.

    Raises:
        BadOption: this is no checkout, or a marker of the README is gone.
    """
    made = made_pages()
    for file, text in made.items():
        file.write_text(text, encoding="utf-8")
    return list(made)


def made_pages() -> dict[Path, str]:
    """The files as they should be."""
    if not README.is_file():
        raise BadOption(f"{README.parent} is no checkout: there is no README.md to write")
    kept = record.records()
    found = rows(CLAIMS.values(), kept)
    readme = README.read_text(encoding="utf-8")
    readme = _between(readme, "claims", summary(found))
    readme = _between(readme, "questions", questions())
    return {EVIDENCE: evidence(found), README: readme}


def evidence(found: Sequence[Row]) -> str:
    """The whole page: a table a paper, then the runs that it rests on."""
    parts = [_INTRODUCTION, summary(found)]
    for key, title in PAPERS.items():
        those = [row for row in found if row.claim.paper == key]
        if those:
            parts += [f"## {title}\n", _claims(those)]
    used = {id(r.record): r.record for r in found if r.record}
    parts += ["## The runs\n", _runs(list(used.values()))]
    return "\n".join(parts)


def summary(found: Sequence[Row]) -> str:
    """A row a paper: how many of its claims are what."""
    table = []
    for key, title in PAPERS.items():
        cases: dict[str, list[Row]] = {}
        for row in found:
            if row.claim.paper == key:
                cases.setdefault(row.claim.key, []).append(row)
        if cases:
            words = [judged(those) for those in cases.values()]
            table.append((title, str(len(words)), *(str(words.count(w)) for w in _JUDGED)))
    return _table(("claims of", "claims", *_JUDGED), table)


def questions() -> str:
    """The README's questions with their answers, in the words that were kept."""
    kept = json.loads(QUESTIONS.read_text(encoding="utf-8"))
    columns = ("question", "answer", "n", "command")
    return _table(columns, [tuple(row[c] for c in columns) for row in kept])


def _claims(those: Sequence[Row]) -> str:
    table, last = [], ""
    for row in those:
        f = row.finding
        says = "" if row.claim.key == last else f"{row.claim.says} `{row.claim.key}`"
        last = row.claim.key
        table.append(
            (
                says,
                f.case if f else "",
                f"**{row.verdict}**" if row.verdict == "contradicted" else row.verdict,
                f"{f.effect} {f.unit}" if f and f.effect else row.why,
                f"{f.effect.n} {f.over}" if f and f.effect else "",
                str(f.claimed) if f else "",
                f.control if f else "",
                ", ".join((row.record.name, *row.record.marks)) if row.record else "–",
            )
        )
    return _table(
        ("claim", "case", "here", "found", "n", "claimed", "control", "run"),
        table,
    )


def _runs(used: Sequence[Record]) -> str:
    table = [
        (
            r.name,
            str(r.inputs.get("model") or "the toy"),
            str(r.inputs.get("text") or "–"),
            f"`{r.command}`",
            r.commit,
            r.date,
            f"{r.seconds:.0f} s" if r.seconds else "–",
        )
        for r in used
    ]
    return _table(("run", "model", "text", "command", "commit", "date", "took"), table)


def _table(columns: Sequence[str], found: Sequence[Sequence[str]]) -> str:
    lines = [columns, *([_cell(cell) for cell in row] for row in found)]
    head, *body = (f"| {' | '.join(line)} |\n" for line in lines)
    return head + "|---" * len(columns) + "|\n" + "".join(body)


def _cell(text: str) -> str:
    """A cell of Markdown: a bar inside would end it."""
    return text.replace("\n", " ").replace("\\|", "|").replace("|", "\\|")


def _between(page: str, name: str, text: str) -> str:
    begin, end = _BEGIN.format(name), _END.format(name)
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise BadOption(f"{README.name}: no {begin} … {end}")
    return f"{before}{begin}\n\n{text}\n{end}{after}"
