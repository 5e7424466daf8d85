"""Which answer a model finds likeliest: log p of every choice after the same k examples."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.fewshot.task import Task, preamble
from experiments.progress import Advance
from experiments.settings import BadOption


class Answers(NamedTuple):
    """logp: Σ log p of each choice's tokens, NaN where an item has fewer choices.

    gold: the right choice. first_ids: the ids that the first prompt begins with.
    """

    logp: Float[np.ndarray, "items choices"]
    gold: Int[np.ndarray, " items"]
    first_ids: tuple[int, ...]

    @property
    def correct(self) -> Bool[np.ndarray, " items"]:
        """Whether the likeliest choice is the right one; the first of equals counts."""
        return np.nanargmax(self.logp, axis=1) == self.gold


def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    shots: int,
    advance: Advance = lambda _: None,
    *,
    whole: bool = False,
) -> Answers:
    """argmax_c Σ_t log p(c_t | examples, context, c_<t), lm-eval's `acc` over a model in memory.

    The tokens of a choice are those of context + choice behind those of the context. Prompts
    begin with BOS where the tokenizer has one. What prompts share is computed once, with a cache;
    `whole`: every prompt from its first token and in one piece, as what stands in for attention
    or gates tokens by their place needs it. `advance` is called once an item.

    Raises:
        BadOption: fewer examples than shots; lm-eval is not installed.
        BadInput: a prompt is longer than the model was made for.
    """
    if shots > len(task.examples):
        raise BadOption(f"--shots {shots}: {task.name} has {len(task.examples)} examples")
    try:
        from experiments.fewshot import harness
    except ImportError as error:
        raise BadOption(f"{error}: pip install 'catch-tag-release[eval]'") from error

    ways = sum(len(item.choices) for item in task.items)
    done = iter(range(1, ways + 1))

    def per_item(_: str) -> None:
        row, count = next(done), len(task.items)
        if row * count // ways > (row - 1) * count // ways:
            advance(task.name)

    lm = harness.InMemory(model, tokenizer, per_item, whole=whole)
    width = max(len(item.choices) for item in task.items)
    logp = np.full((len(task.items), width), np.nan)
    for line, sample in zip(logp, harness.samples(lm, harness.choices(task, shots)), strict=True):
        found = [logp for logp, _ in sample["filtered_resps"]]
        line[: len(found)] = found
    first = task.items[0]
    prompt = lm.row(preamble(task, shots) + first.context, first.choices[0])
    gold = np.array([item.gold for item in task.items])
    return Answers(logp, gold, prompt.ids[:4])
