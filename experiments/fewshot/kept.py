"""Answers that are computed once: by weights, task, shots, tokenizer and code."""

import hashlib
import importlib.metadata
import json
from functools import cache
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import experiments.fewshot
from bridge.manifest import content_hash
from experiments.fewshot.ask import Answers, ask
from experiments.fewshot.task import Task
from experiments.progress import Advance
from experiments.remembered import Found, remembered
from mech.digest import sha256
from mech.gguf import cache_folder


def weights_of(model: PreTrainedModel) -> str:
    """SHA-256 of what the model computes with: its tensors, its modules' kinds, its settings.

    Not of hooks or of what stands in for attention: ask models under such without a memory.
    """
    kinds = [f"{name} {type(module).__qualname__}" for name, module in model.named_modules()]
    settings = model.config.to_json_string(use_diff=False)
    told = "\n".join([content_hash(model), *kinds, settings])
    return hashlib.sha256(told.encode()).hexdigest()


def asked(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    shots: int,
    advance: Advance = lambda _: None,
    *,
    weights: str,
    whole: bool = False,
    folder: Path | None = None,
) -> Answers:
    """`ask`, from `folder` where the same was asked before (default: the user's cache folder).

    weights: `weights_of(model)`, taken once for many tasks. Raises as `ask`; BadOption where a
    file in the folder is damaged.
    """
    key = {
        "weights": weights,
        "dtype and device": f"{model.dtype} {model.device}",
        "tokenizer": _of_tokenizer(tokenizer),
        "task": hashlib.sha256(json.dumps(task).encode()).hexdigest(),
        "shots": shots,
        "whole": whole,
        "code": _code(),
        "arithmetic": _arithmetic(),
    }

    def compute() -> Found:
        found = ask(model, tokenizer, task, shots, advance, whole=whole)
        arrays = {"logp": found.logp, "gold": found.gold}
        return Found(arrays, {"first_ids": list(found.first_ids)})

    found = remembered(folder or cache_folder() / "answers", key, compute)
    first = tuple(found.facts["first_ids"])
    return Answers(found.arrays["logp"], found.arrays["gold"], first)


def _of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1]))
    told = f"{type(tokenizer).__name__} {tokenizer.bos_token_id} {vocabulary}"
    return hashlib.sha256(told.encode()).hexdigest()


@cache
def _code() -> str:
    root = Path(next(iter(experiments.fewshot.__path__)))
    return sha256(sorted(root.glob("*.py")))


def _arithmetic() -> str:
    named = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("transformers", "lm-eval"))
    threads = f"{torch.get_num_threads()} threads"
    return (
        f"torch {torch.__version__}, {named}, {torch.backends.cpu.get_cpu_capability()}, {threads}"
    )
