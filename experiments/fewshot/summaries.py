"""Summaries of documents by ROUGE-L, lm-eval's generation over a model in memory.

A file holds a line a document: {"document": "...", "summary": "..."}, as XSum's fields are
called. No such data travels with this package.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.fewshot import harness
from experiments.progress import Advance
from experiments.settings import BadOption

WORDS = 64
"""Tokens of a summary at most; it ends with its line."""


class Summary(NamedTuple):
    """A document and the summary that somebody wrote."""

    document: str
    summary: str


def read(path: Path, limit: int) -> list[Summary]:
    """The first `limit` lines of the file.

    Raises:
        BadOption: there is no such file, a line of it is none, or it has fewer.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[:limit]
        rows = [Summary(*(json.loads(line)[name] for name in Summary._fields)) for line in lines]
    except OSError as error:
        raise BadOption(f"--summaries {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        said = f'not lines of {{"document": ..., "summary": ...}} ({error})'
        raise BadOption(f"--summaries {path}: {said}") from error
    if len(rows) < limit or not rows:
        raise BadOption(f"--summaries {path}: has {len(rows)} lines, not {limit}")
    return rows


def rouge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[Summary],
    advance: Advance = lambda _: None,
) -> tuple[Float[np.ndarray, " documents"], list[str]]:
    """F of ROUGE-L a document, 2 P R / (P + R), and what was said: greedy, to the line's end.

    P and R: the longest common subsequence of words over the words of the model's summary, and
    over those of the written one (Lin 2004, by rouge-score, without stemming). Raises BadInput
    where a document does not fit into the model.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])

    def judged(row: dict, said: list[str]) -> dict[str, float]:
        return {"rougeL": scorer.score(row["summary"], said[0])["rougeL"].fmeasure}

    made = harness.made(
        "summaries",
        {"test": [row._asdict() for row in rows]},
        output_type="generate_until",
        doc_to_text=_prompt,
        doc_to_target="summary",
        generation_kwargs={"until": ["\n"], "max_gen_toks": WORDS, "do_sample": False},
        process_results=judged,
        metric_list=[{"metric": "rougeL", "aggregation": "mean", "higher_is_better": True}],
    )
    found = harness.samples(harness.InMemory(model, tokenizer, advance), made)
    return np.array([one["rougeL"] for one in found]), [one["resps"][0][0] for one in found]


def _prompt(row: dict) -> str:
    return f"Article: {row['document']}\nSummary:"
