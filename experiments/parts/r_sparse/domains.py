"""Texts of several kinds, cut alike: the one that was given, documentation, code, and others."""

import gzip
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor

from experiments.parts.work import Amounts
from experiments.provenance import sha256_text
from experiments.settings import BadOption, Reading
from experiments.text import Half, Text, read_text
from mech import tokens
from mech.load import Loaded

CODE = "email"
"""The package of the standard library whose source is the code that is read."""


class Domain(NamedTuple):
    """A kind of text: windows to calibrate on, to score, and to read; no text is in both halves."""

    name: str
    sha256: str
    calibration: Int[Tensor, "windows seq"]
    windows: Int[Tensor, "windows seq"]
    sequences: Int[Tensor, "sequences seq"]


def domains(
    loaded: Loaded, reading: Reading, amounts: Amounts, more: Sequence[Path]
) -> list[Domain]:
    """The reading's text first, then documentation strings, Python's own code, and `more`.

    Files in `more` are text, or JSON lines (.jsonl, .jsonl.gz) with "text", or with "query",
    "choices" and "gold" as tasks are kept.

    Raises:
        BadOption: two domains of one name, a file of another form. UnreadableText: no such file.
        BadInput: too short a text.
    """
    files = ([] if reading.text is None else [reading.text]) + [None, Path(CODE), *more]
    names = [_named(file) for file in files]
    if len(set(names)) < len(names):
        raise BadOption(f"--more: two texts of one name among {', '.join(names)}")
    return [_domain(loaded, reading, amounts, n, f) for n, f in zip(names, files, strict=True)]


def _named(file: Path | None) -> str:
    if file is None:
        return "documentation"
    return "code" if file == Path(CODE) else file.name.split(".")[0]


def _domain(
    loaded: Loaded, reading: Reading, amounts: Amounts, name: str, file: Path | None
) -> Domain:
    def cut(half: Half, seq: int, count: int) -> Int[Tensor, "windows seq"]:
        enough = _half(name, file, half).text[: 16 * seq * count]
        return tokens.windows(tokens.encode(loaded.tokenizer, enough, bos=reading.bos), seq, count)

    return Domain(
        name,
        _half(name, file, "evaluation").sha256,
        cut("calibration", amounts.calibration_seq, amounts.calibration),
        cut("evaluation", amounts.context, amounts.windows),
        cut("evaluation", amounts.seq, amounts.sequences),
    )


def _half(name: str, file: Path | None, half: Half) -> Text:
    if name == "code":
        whole = _code()
    elif file is not None and ".jsonl" in file.suffixes:
        whole = _lines(file)
    else:
        return read_text(file, half)
    middle = len(whole) // 2
    text = whole[:middle] if half == "calibration" else whole[middle:]
    return Text(text, f"{name} ({half} half)", sha256_text(text))


def _code() -> str:
    spec = importlib.util.find_spec(CODE)
    assert spec is not None
    assert spec.origin is not None
    files = sorted(Path(spec.origin).parent.glob("*.py"))
    return "\n\n".join(file.read_text(encoding="utf-8") for file in files)


def _lines(file: Path) -> str:
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8") as lines:
            return "\n\n".join(_worded(json.loads(line)) for line in lines if line.strip())
    except OSError as error:
        raise BadOption(f"--more {file}: {error.strerror or error}") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise BadOption(
            f'--more {file}: give lines of JSON with "text", or "query", "choices" and "gold"'
        ) from error


def _worded(row: dict) -> str:
    return row["text"] if "text" in row else f"{row['query']} {row['choices'][row['gold']]}"
