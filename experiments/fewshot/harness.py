"""lm-eval over a model in memory: its tasks, filters and metrics; our tokens, cache and sums.

Nothing is fetched: a task is made here, of items or of a local file.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bridge.evaluate import token_losses
from experiments.fewshot.task import Task
from experiments.fewshot.tree import Row, greedily, scored
from experiments.progress import Advance
from mech.errors import BadInput
from mech.quiet import quiet
from mech.tokens import encode


class InMemory(LM):
    """A loaded model, and its tokenizer: every prompt begins with BOS where there is one.

    whole: every row is run by itself from its first token, in one piece, as what changes
    attention or gates tokens by their place needs it; otherwise beginnings are shared.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        advance: Advance = lambda _: None,
        *,
        whole: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.advance, self.whole = model, tokenizer, advance, whole

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        rows = [self.row(*request.args) for request in requests]
        found = scored(self.model, rows, self.advance, whole=self.whole)
        return [(one.logp, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        longest = self.model.config.get_text_config(decoder=True).max_position_embeddings
        found = []
        for text in (request.args[0] for request in requests):
            encoded = encode(self.tokenizer, text)
            lead = int(encoded.ids[0]) if encoded.bos else None
            body = encoded.ids[1:] if encoded.bos else encoded.ids
            room = longest - encoded.bos
            losses = token_losses(self.model, body, context=longest, stride=room, prefix=lead)
            found.append(-float(losses.nll.sum()))
            self.advance("texts")
        return found

    def generate_until(self, requests: list[Instance]) -> list[str]:
        found = []
        for request in requests:
            context, settings = cast("tuple[str, dict[str, Any]]", request.args)
            if settings.get("do_sample"):
                raise BadInput("generation here is greedy: give do_sample false")
            found.append(self._continued(context, settings["until"], settings["max_gen_toks"]))
            self.advance("texts")
        return found

    @torch.no_grad()
    def _continued(self, context: str, until: Sequence[str], most: int) -> str:
        said: list[int] = []
        text = ""
        for token in greedily(self.model, encode(self.tokenizer, context).ids, most):
            said.append(token)
            text = str(self.tokenizer.decode(said, skip_special_tokens=True))
            if token == self.tokenizer.eos_token_id or any(stop in text for stop in until):
                break
        return text[: min((text.find(stop) for stop in until if stop in text), default=None)]

    def row(self, context: str, ending: str) -> Row:
        """Ids of context + ending; the ids behind those of the context are scored.

        Blanks at a context's end go with the ending, as tokenizers have them.
        """
        bare = context.rstrip()
        known = encode(self.tokenizer, bare).ids if bare else self._nothing()
        whole = encode(self.tokenizer, context + ending).ids
        if len(whole) <= len(known):
            raise BadInput(f"{ending!r} adds no token to what stands before it")
        return Row(tuple(whole.tolist()), len(known))

    def _nothing(self) -> torch.Tensor:
        if self.tokenizer.bos_token_id is None:
            raise BadInput("nothing stands before the choices, and the tokenizer has no BOS")
        return torch.tensor([self.tokenizer.bos_token_id])


def samples(language_model: InMemory, made: ConfigurableTask) -> list[dict[str, Any]]:
    """What lm-eval logged of every item, in order: responses, target, metrics."""
    name = str(made.config.task)
    with quiet():
        found: Any = evaluate(
            language_model, {"tasks": {name: made}, "groups": {}}, bootstrap_iters=0
        )
    return sorted(found["samples"][name], key=lambda sample: sample["doc_id"])


def choices(task: Task, shots: int) -> ConfigurableTask:
    """lm-eval's multiple choice over the task's items, with its first examples before each."""
    rows = {
        "test": [item._asdict() for item in task.items],
        "shown": [item._asdict() for item in task.examples],
    }
    return made(
        task.name,
        rows,
        fewshot_split="shown" if task.examples else None,
        fewshot_config={"sampler": "first_n"},
        num_fewshot=shots,
        output_type="multiple_choice",
        doc_to_text=_context,
        doc_to_choice=_choices,
        doc_to_target=_gold,
        target_delimiter="",
        fewshot_delimiter=task.between,
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )


def made(name: str, rows: dict[str, list[dict]], **settings: Any) -> ConfigurableTask:
    """A task of lm-eval over rows in memory; the split "test" is asked."""
    config = {
        "task": name,
        "custom_dataset": lambda **_: _datasets(rows),
        "test_split": "test",
        **settings,
    }
    with quiet():
        return ConfigurableTask(config=config)


def _datasets(rows: dict[str, list[dict]]) -> dict[str, Dataset]:
    return {split: Dataset.from_list(found) for split, found in rows.items() if found}


def _context(row: dict) -> str:
    return row["context"]


def _choices(row: dict) -> list[str]:
    return list(row["choices"])


def _gold(row: dict) -> int:
    return row["gold"]
