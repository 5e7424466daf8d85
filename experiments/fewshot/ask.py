"""Which answer a model finds likeliest: log p of every choice after the same k examples."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.fewshot.task import Task, preamble
from experiments.progress import Advance
from mech.tokens import encode


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


@torch.no_grad()
def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    shots: int,
    advance: Advance = lambda _: None,
) -> Answers:
    """argmax_c Σ_t log p(c_t | examples, context, c_<t), unnormalised, as lm-eval's `acc`.

    The tokens of a choice are those of context + choice behind those of the context. Prompts
    begin with BOS where the tokenizer has one.
    """
    width = max(len(item.choices) for item in task.items)
    logp = np.full((len(task.items), width), np.nan)
    before, first = preamble(task, shots), ()
    for row, item in enumerate(task.items):
        context = encode(tokenizer, before + item.context).ids
        first = first or tuple(context[:4].tolist())
        for column, choice in enumerate(item.choices):
            whole = encode(tokenizer, before + item.context + choice).ids
            logp[row, column] = _logp(model, whole, len(context))
        advance(task.name)
    return Answers(logp, np.array([item.gold for item in task.items]), first)


def _logp(model: PreTrainedModel, ids: Int[Tensor, " seq"], known: int) -> float:
    logits = model(ids[None].to(model.device)).logits[0, known - 1 : -1].double()
    found = logits.log_softmax(-1).gather(-1, ids[known:, None].to(model.device))
    return float(found.sum())
