"""The ledger: every claim of every paper, and what was found here."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from experiments import serial
from experiments.findings import Verdict
from experiments.ledger import pages, record
from experiments.ledger.claims import CLAIMS, PAPERS
from experiments.ledger.rows import VERDICTS, Row, rows
from experiments.output import RESULT
from experiments.progress import paper as paper_
from experiments.settings import BadOption


@dataclass(frozen=True)
class Config:
    """What to show of the ledger, or what to put into it."""

    paper: tuple[str, ...] = ()
    """Only claims of these papers: low-rank, catch, r-sparse, secondary, qera, a3, corlay, ours."""
    verdict: tuple[Verdict, ...] = ()
    """Only these: shown, "not shown", contradicted, untested."""
    claim: str = ""
    """Only claims whose key has this in it."""
    json: bool = False
    """The rows as JSON, with everything that is known of them."""
    markdown: bool = False
    """The rows as docs/evidence.md has them."""
    add: tuple[Path, ...] = ()
    """Folders of runs, or of such folders, whose findings are kept in place of older ones of the
    same experiment, preset and seed."""
    force: bool = False
    """Keep runs of the smallest preset and of code that was not committed too, with a mark."""
    write: bool = False
    """Write docs/evidence.md and the README's tables from what is kept."""


def main(config: Config) -> int:
    """Add, write or print; exit code 0."""
    if strangers := set(config.paper) - set(PAPERS):
        raise BadOption(f"--paper {min(strangers)}: give some of {', '.join(PAPERS)}")
    taken = [record.of_run(folder, force=config.force) for folder in _runs(config.add)]
    for one in taken:
        file = record.write(one)
        sys.stdout.write(f"{len(one.findings)} findings of {one.name}: {file}\n")
    if config.write:
        for page in pages.write():
            sys.stdout.write(f"{page}\n")
    if not (taken or config.write):
        show(config, asked(config))
    return 0


def _runs(given: Sequence[Path]) -> list[Path]:
    """The folders of runs: those given, and those in a folder that holds no run itself."""
    found = []
    for folder in given:
        within = sorted(file.parent for file in folder.glob(f"*/{RESULT}"))
        found += [folder] if (folder / RESULT).is_file() or not within else within
    return found


def asked(config: Config) -> list[Row]:
    """The rows that the options leave."""
    return [
        row
        for row in rows(CLAIMS.values(), record.records())
        if (not config.paper or row.claim.paper in config.paper)
        and (not config.verdict or row.verdict in config.verdict)
        and config.claim in row.claim.key
    ]


def show(config: Config, found: Sequence[Row]) -> None:
    """As JSON, as Markdown, or as one table a paper."""
    if config.json:
        sys.stdout.write(serial.dumps([row.plain() for row in found]))
    elif config.markdown:
        sys.stdout.write(pages.evidence(found))
    else:
        _print(found)


def _print(found: Sequence[Row]) -> None:
    console = paper_()
    for key, title in PAPERS.items():
        those = [row for row in found if row.claim.paper == key]
        if not those:
            continue
        console.print()
        console.print(title, style="bold")
        table = Table("claim", "case", "verdict", "found", "n", "control", "from", box=None)
        for row in those:
            f, r = row.finding, row.record
            table.add_row(
                row.claim.key.partition("/")[2],
                f.case if f else "",
                row.verdict,
                f"{f.effect} {f.unit}" if f and f.effect else row.why,
                f"{f.effect.n} {f.over}" if f and f.effect else "",
                f.control if f else "",
                f"{row.model}, {r.commit}: {r.command}" if r else row.claim.experiment,
            )
        console.print(table)
    counts = ", ".join(f"{sum(r.verdict == v for r in found)} {v}" for v in VERDICTS)
    console.print(f"\n{len({r.claim.key for r in found})} claims; cases: {counts}")
