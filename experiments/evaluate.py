"""How many questions does a model answer? Tasks with examples before them, and summaries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.intervals import Interval, interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import Reading, some, within


@dataclass(frozen=True)
class Config:
    """Accuracy of a model on tasks, with and without examples; through lm-eval, offline."""

    reading: Reading = field(default_factory=Reading)
    tasks: tuple[str, ...] = ("labels", "segment-copy")
    """arc-easy, openbookqa, piqa, boolq of a folder; or generated: induction, labels,
    segment-copy, segment-average."""
    folder: Path | None = None
    """Where the tasks' files lie. Default: $CTR_DATA/tasks, if it is set."""
    shots: tuple[int, ...] = (0, 5)
    """Examples before every item; every number is asked."""
    limit: int = 100
    """Items of a task; documents of summaries."""
    seed: int = 0
    """Draws items and examples."""
    summaries: Path | None = None
    """File of lines {"document": ..., "summary": ...}, for ROUGE-L."""


class Row(NamedTuple):
    """A task with some examples before every item, and the ids that its first prompt begins with.

    accuracy: with its interval over items. more: than with the first number of examples, paired.
    """

    task: str
    shots: int
    chance: float
    accuracy: Interval
    more: Interval
    p: float
    first_ids: tuple[int, ...]


@dataclass(frozen=True)
class Result:
    """weights: SHA-256 of what was asked. units: 1 for every item that is right, else 0."""

    config: Config
    inputs: Inputs
    weights: str
    rows: list[Row]
    rouge: Interval | None
    units: Mapping[str, Float[np.ndarray, " items"]]


def run(config: Config, progress: Progress) -> Result:
    """Load, then one task and one number of examples at a time; answers are kept.

    Raises:
        BadOption: tasks or files that cannot be asked. BadInput: model, or prompts too long.
    """
    from experiments import measure
    from experiments.fewshot import kept, summaries
    from experiments.fewshot.paired import paired
    from experiments.parts.shots import chance, chosen
    from mech import tokens

    some("tasks", config.tasks)
    some("shots", config.shots)
    within("limit", config.limit, 2)
    within("shots", min(config.shots), 0)
    tasks = chosen(config.tasks, config.folder, config.limit, config.seed)
    texts = config.summaries and summaries.read(config.summaries, config.limit)
    loaded = measure.loaded_model(config.reading, progress)
    model, tokenizer = loaded.model, loaded.tokenizer
    encoded = tokens.encode(tokenizer, tasks[0].items[0].context)
    progress.say(f"BOS: {encoded.decision}")
    weights, rows, units = kept.weights_of(model), [], {}
    with progress.task("items", config.limit * len(tasks) * len(config.shots)) as advance:
        for task in tasks:
            answers = [
                kept.asked(model, tokenizer, task, shots, advance, weights=weights)
                for shots in config.shots
            ]
            for shots, found in zip(config.shots, answers, strict=True):
                right = found.correct
                beside = paired(answers[0].correct, right)
                accuracy = interval(right.astype(float))
                known = (task.name, shots, chance(task), accuracy, beside.gain, beside.p)
                rows.append(Row(*known, found.first_ids))
                units[f"{task.name}/{shots}"] = right.astype(float)
    said = None
    if texts:
        with progress.task("summaries", len(texts)) as advance:
            units["summaries"], _ = summaries.rouge(model, tokenizer, texts, advance)
        said = interval(units["summaries"])
    inputs = measure.described(loaded, config.reading, encoded, None)
    return Result(config, inputs, weights, rows, said, units)


def sections(result: Result) -> list[Section]:
    """A row a task and number of examples."""
    rows = [
        (
            row.task,
            str(row.shots),
            f"{row.chance:.2f}",
            str(row.accuracy),
            str(row.more),
            f"{row.p:.2g}",
            " ".join(map(str, row.first_ids)),
        )
        for row in result.rows
    ]
    least = result.config.shots[0]
    table = Table(
        ("task", "examples", "chance", "accuracy", f"more than with {least}", "p", "first ids"),
        rows,
        f"{result.config.limit} items of each task; 95% intervals over items, differences are "
        f"paired; p: McNemar, exact, not corrected for the number of rows. "
        f"BOS: {result.inputs.bos}.",
    )
    said = [f"ROUGE-L of the summaries: {result.rouge}."] if result.rouge else []
    return [Section("Accuracy", said, [table])]
