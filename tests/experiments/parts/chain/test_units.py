"""Streams of items are scored as each item is with those before it as its examples."""

import numpy as np
import pytest
import torch
from tiny import WORDS, tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.fewshot.ask import ask
from experiments.fewshot.task import Item, Task
from experiments.fewshot.tasks import task
from experiments.fewshot.words import KINDS
from experiments.parts.chain.units import Scored, _answered, _stream
from experiments.settings import BadOption

SEQ = 37


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain") / "tiny"
    every = [word for kind in KINDS.values() for word in kind]
    tiny_llama(folder, [*WORDS, ":", "A", "B", *every], room=128)
    model = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
    return model, AutoTokenizer.from_pretrained(folder)


def test_every_item_of_a_stream_is_scored_behind_those_before_it(tiny):
    model, tokenizer = tiny
    drawn = task("labels", None, 40, 3)
    ids, scored = _stream(tokenizer, drawn, SEQ)
    assert len(ids) == SEQ
    assert 5 < len(scored) < 40
    with torch.no_grad():
        logits = model(ids[None]).logits[0]
    for index, each in enumerate(scored):
        alone = Task("labels", (drawn.items[index],), drawn.items[:index], drawn.between)
        answers = ask(model, tokenizer, alone, index)
        right, nats = _answered(logits, [each])
        assert right == float(answers.correct[0])
        assert nats == pytest.approx(-answers.logp[0, each.gold], abs=1e-4)


def test_a_stream_that_is_too_short_is_refused(tiny):
    with pytest.raises(BadOption, match="shorter"):
        _stream(tiny[1], task("labels", None, 5, 0), 128)


def test_answers_that_begin_alike_are_refused(tiny):
    twice = Task("t", (Item("dog :", (" red", " red"), 0),) * 40, ())
    with pytest.raises(BadOption, match="same token"):
        _stream(tiny[1], twice, SEQ)


def test_accuracy_is_among_the_choices_and_nats_among_all_words():
    logits = torch.full((3, 5), 0.0)
    logits[1, 4], logits[1, 2], logits[2, 0] = 9.0, 1.0, 2.0
    items = [Scored(1, (1, 2), 1), Scored(2, (0, 3), 1)]
    right, nats = _answered(logits, items)
    assert right == 0.5
    wanted = [-logits[1].double().log_softmax(-1)[2], -logits[2].double().log_softmax(-1)[3]]
    assert nats == pytest.approx(float(np.mean(wanted)))
