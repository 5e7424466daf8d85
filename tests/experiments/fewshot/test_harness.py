"""lm-eval over a model in memory: accuracies of an independent scorer, perplexity, summaries."""

import json
import math
import os

import numpy as np
import pytest
import torch

from experiments.fewshot import harness, kept, summaries
from experiments.fewshot.ask import ask
from experiments.fewshot.task import Item, Task
from experiments.fewshot.tasks import task
from experiments.settings import BadOption
from mech.load import load

ITEMS = int(os.environ.get("CTR_FEWSHOT_ITEMS", "8"))
"""The acceptance is 200 items: CTR_FEWSHOT_ITEMS=200 pytest tests/experiments/fewshot."""


@pytest.fixture(scope="module")
def tiny(model):
    return load(str(model))


@pytest.fixture(scope="module")
def demo():
    return load("smollm2")


@torch.no_grad()
def independent(model, tokenizer, made, shots):
    """Accuracy by whole prompts, from the definition; shares nothing with what it checks."""
    before = ""
    for example in made.examples[:shots]:
        before += example.context + example.choices[example.gold] + made.between
    right = []
    for item in made.items:
        start = tokenizer.encode(before + item.context, add_special_tokens=False)
        rows = [
            tokenizer.encode(before + item.context + choice, add_special_tokens=False)
            for choice in item.choices
        ]
        longest = max(map(len, rows))
        ids = torch.tensor([[1, *row, *[0] * (longest - len(row))] for row in rows])
        logits = model(ids).logits.double()
        sums = []
        for number, row in enumerate(rows):
            total = 0.0
            for t in range(len(start), len(row)):
                one = logits[number, t]  # BOS stands first: this predicts row[t]
                total += float(one[row[t]] - torch.logsumexp(one, 0))
            sums.append(total)
        right.append(max(range(len(sums)), key=sums.__getitem__) == item.gold)
    return right


@pytest.mark.model
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "shots"), [("arc-easy", 0), ("openbookqa", 0), ("segment-copy", 2)]
)
def test_accuracy_is_an_independent_scorers_item_by_item(name, shots, demo, data, measured):
    made = task(name, data / "tasks", ITEMS)
    found = ask(demo.model, demo.tokenizer, made, shots)
    wanted = independent(demo.model, demo.tokenizer, made, shots)
    assert found.correct.tolist() == wanted
    assert found.first_ids[0] == demo.tokenizer.bos_token_id == 1
    measured(f"{name}, {ITEMS} items", f"{np.mean(wanted):.3f}, the same items", "the same")


@pytest.mark.model
@pytest.mark.data
def test_perplexity_is_an_independent_float64_one(demo, data, measured):
    from bridge.evaluate import perplexity
    from mech.tokens import encode

    text = (data / "wikitext2_raw" / "wiki.test.raw").read_text()[:1200]
    ids = encode(demo.tokenizer, text).ids
    found = perplexity(demo.model, ids[1:], context=len(ids), stride=len(ids) - 1, prefix=1).ppl
    exact = load("smollm2", dtype=torch.float64).model
    with torch.no_grad():
        logits = exact(ids[None]).logits[0]
    losses = [
        float(torch.logsumexp(logits[t - 1], 0) - logits[t - 1, ids[t]]) for t in range(1, len(ids))
    ]
    wanted = math.exp(math.fsum(losses) / len(losses))
    assert found == pytest.approx(wanted, rel=1e-4)
    measured("perplexity", f"{abs(found / wanted - 1):.1e} from float64", "below 1e-4")


def words(seed, count, ways=2, length=5):
    draw = np.random.default_rng(seed)

    def text(n):
        return " ".join(f"w{i}" for i in draw.integers(0, 60, n))

    return tuple(
        Item(text(length), tuple(f" {text(1 + int(draw.integers(2)))}" for _ in range(ways)), 1)
        for _ in range(count)
    )


def test_lm_evals_prompt_and_accuracy_are_ours(tiny):
    made = Task("words", words(0, 9, 3), words(1, 4, 3), "\n")
    for shots in (0, 3):
        lm = harness.InMemory(tiny.model, tiny.tokenizer)
        found = harness.samples(lm, harness.choices(made, shots))
        answers = ask(tiny.model, tiny.tokenizer, made, shots)
        assert [bool(one["acc"]) for one in found] == answers.correct.tolist()
        assert answers.correct.tolist() == independent(tiny.model, tiny.tokenizer, made, shots)
        before = "".join(f"{e.context}{e.choices[e.gold]}\n" for e in made.examples[:shots])
        for one, item in zip(found, made.items, strict=True):
            assert [tuple(pair) for pair in one["arguments"]] == [
                (before + item.context, choice) for choice in item.choices
            ]


def test_items_may_have_different_numbers_of_choices_and_are_counted_once(tiny):
    items = (*words(0, 3, 2), *words(2, 2, 4))
    steps = []
    found = ask(tiny.model, tiny.tokenizer, Task("words", items, ()), 0, steps.append)
    assert np.isnan(found.logp[:3, 2:]).all()
    assert np.isfinite(found.logp[3:]).all()
    assert len(steps) == 5


def test_more_examples_than_there_are_is_refused_in_one_line(tiny):
    made = Task("words", words(0, 3), words(1, 2))
    with pytest.raises(BadOption, match="2 examples"):
        ask(tiny.model, tiny.tokenizer, made, 3)


def test_rolling_log_likelihood_is_the_whole_texts(tiny):
    from lm_eval.api.instance import Instance

    text = " ".join(f"w{i % 60}" for i in range(40))
    lm = harness.InMemory(tiny.model, tiny.tokenizer)
    (found,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    whole = lm.row("", text)
    assert whole.known == 1
    with torch.no_grad():
        logp = tiny.model(torch.tensor([whole.ids])).logits[0].double().log_softmax(-1)
    wanted = sum(float(logp[t - 1, whole.ids[t]]) for t in range(1, len(whole.ids)))
    assert found == pytest.approx(wanted, abs=1e-4)


def test_answers_are_kept_by_weights_task_and_shots(tiny, tmp_path, monkeypatch):
    made = Task("words", words(0, 4), words(1, 2))
    asked_of = []
    plain = kept.ask

    def counted(*arguments, **settings):
        asked_of.append(arguments[3])
        return plain(*arguments, **settings)

    monkeypatch.setattr(kept, "ask", counted)

    def again(shots=1, of=made):
        weights = kept.weights_of(tiny.model)
        model, tokenizer = tiny.model, tiny.tokenizer
        return kept.asked(model, tokenizer, of, shots, weights=weights, folder=tmp_path)

    first = again()
    second = again()
    assert asked_of == [1]
    assert (first.logp == second.logp).all()
    assert first.first_ids == second.first_ids
    again(2)
    again(of=made._replace(between="\n"))
    assert len(asked_of) == 3
    weight = tiny.model.lm_head.weight
    old = weight[0, 0].item()
    try:
        weight.data[0, 0] += 1
        again()
    finally:
        weight.data[0, 0] = old
    assert len(asked_of) == 4


def test_summaries_are_judged_by_the_longest_common_subsequence(tiny, tmp_path, monkeypatch):
    file = tmp_path / "sum.jsonl"
    rows = [{"document": f"w1 w2 w{i}", "summary": "the cat sat on a mat"} for i in range(3)]
    file.write_text("\n".join(map(json.dumps, rows)))
    texts = summaries.read(file, 3)
    found, said = summaries.rouge(tiny.model, tiny.tokenizer, texts)
    assert len(said) == 3
    assert ((found >= 0) & (found <= 1)).all()
    monkeypatch.setattr(harness.InMemory, "_continued", lambda self, *_: " the dog sat on the mat")
    found, _ = summaries.rouge(tiny.model, tiny.tokenizer, texts)
    # "the sat on mat" of six words on either side.
    assert found == pytest.approx(4 / 6)


def test_a_generation_ends_at_its_stop_or_its_length(tiny):
    lm = harness.InMemory(tiny.model, tiny.tokenizer)
    whole = lm._continued("w1 w2", [], 8)
    assert len(whole.split()) == 8
    stop = whole.split()[3]
    assert lm._continued("w1 w2", [stop], 8) == whole[: whole.index(stop)]


@pytest.mark.parametrize("content", ["", '{"document": "a"}', "[]", "{", '{"document": 1}'])
def test_files_that_hold_no_summaries_are_refused_in_one_line(content, tmp_path):
    (tmp_path / "bad.jsonl").write_text(content)
    for path in (tmp_path / "bad.jsonl", tmp_path / "none.jsonl"):
        with pytest.raises(BadOption, match="summaries") as refused:
            summaries.read(path, 2)
        assert "\n" not in str(refused.value)
