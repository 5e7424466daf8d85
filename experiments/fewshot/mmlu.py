"""MMLU (Hendrycks et al. 2021) from its local files: items of the test, examples of the dev part.

The folder holds dev/SUBJECT_dev.csv and test/SUBJECT_test.csv, .gz or not, with the header
question,choice0,choice1,choice2,choice3,answer and the answer as 0 to 3. One preamble stands
before all items here, so its examples are of any subject; the published protocol shows five of the
item's own.
"""

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path

from experiments.fewshot.task import Item
from experiments.settings import BadOption

LETTERS = (" A", " B", " C", " D")
FIELDS = ["question", *(f"choice{i}" for i in range(4)), "answer"]


def items(folder: Path, part: str) -> list[Item]:
    """Every question of the part ("dev" or "test"), subject by subject in the names' order.

    Raises:
        BadOption: no such files, or one that is not of this form.
    """
    files = sorted((folder / part).glob(f"*_{part}.csv*"))
    if not files:
        raise BadOption(f"--tasks: {folder / part} has no *_{part}.csv, which mmlu is read from")
    return [item for file in files for item in _read(file)]


def _read(file: Path) -> Iterator[Item]:
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines)
            if rows.fieldnames != FIELDS:
                raise ValueError(f"its header is {rows.fieldnames}")
            for row in rows:
                yield _item(row)
    except (OSError, EOFError, ValueError, TypeError, csv.Error) as error:
        raise BadOption(f"{file}: not a table of {','.join(FIELDS)} ({error})") from error


def _item(row: dict[str, str]) -> Item:
    gold = int(row["answer"])
    if gold not in range(4):
        raise ValueError(f"answer {gold}")
    choices = "".join(f"\n{'ABCD'[i]}. {row[f'choice{i}']}" for i in range(4))
    return Item(f"{row['question'].strip()}{choices}\nAnswer:", LETTERS, gold)
