"""One tiny model, compressed, in every form, with its tokenizer, and what ours computes from it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from tiny import tiny_llama

from bridge.checkpoint import save
from bridge.compress import compress
from bridge.methods import OATS
from mech.load import load

FORMS: dict[str, Any] = {"dense": "dense", "lora": "base+lora", "packed": "packed"}


class Exported(NamedTuple):
    """folder: dense, lora and packed lie in it, and reference.safetensors. model: in memory."""

    folder: Path
    model: Any
    tokenizer: Any


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    tiny_llama(folder / "source")
    loaded = load(str(folder / "source"))
    model: Any = loaded.model
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # a fresh model is so near uniform that every logit looks equal
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
    ids = torch.randint(2, 62, (6, 17), generator=generator)
    with torch.no_grad():
        before = model(ids[4:]).logits
    compress(model, OATS(compression=0.5), list(ids[:4].split(2)))
    for name, form in FORMS.items():
        save(model, loaded.tokenizer, folder / name, {"seed": 3}, form=form)
    with torch.no_grad():
        logits = model(ids[4:]).logits
        told = model.generate(ids[4:5], max_new_tokens=7, do_sample=False)
    reference = {"ids": ids[4:], "before": before, "logits": logits, "told": told}
    save_file({k: v.contiguous() for k, v in reference.items()}, folder / "reference.safetensors")
    return Exported(folder, model, loaded.tokenizer)


@pytest.fixture(scope="session")
def tasks(tmp_path_factory) -> Path:
    """A folder with one local multiple-choice task of lm-eval."""
    folder = tmp_path_factory.mktemp("tasks")
    generator = torch.Generator().manual_seed(5)
    words = torch.randint(0, 60, (12, 7), generator=generator).tolist()
    rows = [
        {"q": " ".join(f"w{w}" for w in row[:4]), "choices": [f"w{w}" for w in row[4:]],
         "answer": n % 3}
        for n, row in enumerate(words)
    ]  # fmt: skip
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "words.yaml").write_text(
        "task: words\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {folder / 'test.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: choices\ndoc_to_target: answer\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    return folder
