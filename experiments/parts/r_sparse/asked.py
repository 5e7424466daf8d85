"""Multiple-choice questions to a model that is sparse from a share of every sequence on.

`experiments.fewshot.ask` runs what sequences have in common once, and continues; where the first
half of a sequence is dense and the second sparse, every sequence has to be run as a whole.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.progress import Advance
from experiments.settings import within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    import numpy as np
    from jaxtyping import Bool
    from torch import Tensor

    from experiments.fewshot.ask import Answers
    from experiments.fewshot.task import Task
    from experiments.parts.work import Work


@dataclass(frozen=True)
class Questions:
    """What is asked, without examples before it."""

    tasks: tuple[str, ...] = ("arc-easy", "piqa")
    """Names of `experiments.fewshot.tasks`; none: nothing is asked. Those of files that are not
    there are left out, and where none remains induction is asked."""
    folder: Path | None = None
    """Folder of the files; default: tasks in the folder that CTR_DATA names."""
    items: int = 30
    """Of each task; intervals of accuracy are over items."""

    def drawn(self) -> "list[Task]":
        """The tasks, each with its items.

        Raises:
            BadOption: an unknown task, or one with fewer items.
        """
        from experiments.fewshot.tasks import available, names, task

        if not self.tasks:
            return []
        within("items", self.items, 2)  # one unit has no interval
        folder = self.folder
        if folder is None and "CTR_DATA" in os.environ:
            folder = Path(os.environ["CTR_DATA"]) / "tasks"
        there = [name for name in self.tasks if name in available(folder) or name not in names()]
        return [task(name, folder, self.items) for name in there or ("induction",)]


QUESTIONS, NOTHING = Questions(), Questions(())
GENERATED = Questions(("induction",), items=2)


def correct(work: "Work", tasks: "list[Task]", advance: Advance) -> "Bool[np.ndarray, ' items']":
    """Which items of all tasks the model, as it stands, answers right."""
    import numpy as np

    return np.concatenate([answered(work, task, advance).correct for task in tasks])


def answered(work: "Work", task: "Task", advance: Advance) -> "Answers":
    """log p of every choice after its context alone, as `ask` gives it, a pass an item.

    The choices of an item are rows of one batch, padded at their ends, which a causal model does
    not see; so where a share of every sequence is dense, it is the same tokens for all choices.
    """
    import numpy as np

    from experiments.fewshot.ask import Answers
    from mech.tokens import encode

    width = max(len(item.choices) for item in task.items)
    logp = np.full((len(task.items), width), np.nan)
    first: tuple[int, ...] = ()
    for row, item in enumerate(task.items):
        encoded = [
            encode(work.loaded.tokenizer, item.context + end).ids for end in ("", *item.choices)
        ]
        context, *whole = encoded
        first = first or tuple(context[:4].tolist())
        logp[row, : len(whole)] = _logp(work, whole, len(context))
        advance(task.name)
    return Answers(logp, np.array([item.gold for item in task.items]), first)


def _logp(work: "Work", rows: "list[Tensor]", known: int) -> list[float]:
    import torch

    model, found = work.loaded.model, []
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)
    with torch.no_grad():
        logits = model(input_ids=padded, use_cache=False).logits
    for ids, its in zip(rows, logits, strict=True):
        end = ids[known:, None].to(model.device)
        scores = its[known - 1 : len(ids) - 1].double().log_softmax(-1)
        found.append(float(scores.gather(-1, end).sum()))
    return found
