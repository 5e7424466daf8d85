"""packed through transformers' own calls: load, save, load again, generate, and lm-eval."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from bridge.operators import LowRank
from bridge.toggle import without


@pytest.fixture(scope="module")
def again(exported, tmp_path_factory) -> Any:
    """Loaded, saved by transformers, loaded again."""
    first: Any = AutoModelForCausalLM.from_pretrained(exported.folder / "packed")
    second = tmp_path_factory.mktemp("second") / "model"
    first.save_pretrained(second)
    return AutoModelForCausalLM.from_pretrained(second)


def test_saved_by_transformers_and_loaded_again(exported, again):
    expected = load_file(exported.folder / "reference.safetensors")
    with torch.no_grad():
        assert torch.equal(again(expected["ids"]).logits, expected["logits"])
    told = again.generate(expected["ids"][:1], max_new_tokens=7, do_sample=False)
    assert torch.equal(told, expected["told"])


def scores(model, tokenizer, tasks) -> list[list[tuple[float, bool]]]:
    """Of every item, log p and greediness of its choices, as lm-eval asks for them."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    given: Any = {"pretrained": model, "tokenizer": tokenizer, "batch_size": 4}
    evaluate: Any = lm_eval.simple_evaluate
    found = evaluate(
        model=HFLM(**given),
        tasks=["words"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    return [item["filtered_resps"] for item in found["samples"]["words"]]


@pytest.mark.filterwarnings("ignore")  # lm-eval and what it imports warn of themselves
def test_lm_eval_scores_it_as_the_model_in_memory(exported, again, tasks, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tasks / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(exported.folder / "packed")
    expected = scores(exported.model, exported.tokenizer, tasks)
    assert scores(again, tokenizer, tasks) == expected
    assert len(expected) == 12
    with without(again, LowRank):
        assert scores(again, tokenizer, tasks) != expected
