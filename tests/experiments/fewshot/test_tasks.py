"""Tasks are what they say: right answers by the rule, no item among the examples, same again."""

import gzip
import json
from collections import Counter

import numpy as np
import pytest

from experiments.fewshot import tasks
from experiments.fewshot.task import preamble
from experiments.fewshot.words import KINDS
from experiments.settings import BadOption


@pytest.mark.parametrize("name", tasks.GENERATED)
def test_generated_again_it_is_the_same_and_another_seed_is_another(name):
    made = tasks.task(name, None, 50, 3)
    assert made == tasks.task(name, None, 50, 3)
    assert made.items != tasks.task(name, None, 50, 4).items
    contexts = [item.context for item in (*made.items, *made.examples)]
    assert len(set(contexts)) == 50 + tasks.EXAMPLES
    assert len(made.items) == 50
    for item in made.items:
        assert len(set(item.choices)) == len(item.choices)
        assert all(choice.startswith(" ") for choice in item.choices)


@pytest.mark.parametrize("name", tasks.GENERATED)
def test_where_the_right_answer_stands_says_nothing(name):
    made = tasks.task(name, None, 100)
    ways = len(made.items[0].choices)
    most = max(Counter(item.gold for item in made.items).values())
    assert most < 100 / ways + 4 * np.sqrt(100 / ways)


def test_induction_goes_on_as_before():
    for item in tasks.task("induction", None, 30).items:
        listed, again = (part.split() for part in item.context.split(" . "))
        assert listed[: len(again)] == again
        assert item.choices[item.gold].strip() == listed[len(again)]
        assert {choice.strip() for choice in item.choices} <= set(listed) - {again[-1]}


def test_labels_are_by_kind_and_balanced():
    made = tasks.task("labels", None, 112)
    kind = {word: kind for kind, words in KINDS.items() for word in words}
    met = {(kind[item.context.split()[0]], item.gold) for item in (*made.items, *made.examples)}
    assert len(met) == 2
    assert {gold for _, gold in met} == {0, 1}
    for shots in (2, 4, 16):
        assert sum(item.gold for item in made.examples[:shots]) == shots / 2


def test_segment_copy_is_the_first_word_behind_the_bar():
    for item in tasks.task("segment-copy", None, 30).items:
        assert item.choices[item.gold].strip() == item.context.split("|")[1].split()[0]
        assert {c.strip() for c in item.choices} == set(item.context.split()) - {"|", "="}


def test_segment_average_is_the_majority_behind_the_bar_and_the_first_segment_says_nothing():
    made = tasks.task("segment-average", None, 1000).items
    agree = 0
    for item in made:
        first, second = (part.split() for part in item.context.rstrip(" =").split(" | "))
        assert item.choices[item.gold].strip() == Counter(second).most_common()[0][0]
        agree += item.choices[item.gold].strip() == Counter(first).most_common()[0][0]
    assert abs(agree / 1000 - 0.5) < 0.06


def test_a_preamble_shows_the_first_examples_with_their_answers():
    made = tasks.task("labels", None, 10)
    shown = "".join(f"{e.context}{e.choices[e.gold]}\n" for e in made.examples[:2])
    assert preamble(made, 2) == shown
    assert preamble(made, 0) == ""
    with pytest.raises(ValueError, match="examples"):
        preamble(made, 17)


def lines(count):
    return [
        json.dumps({"query": f"Question: {i}?", "choices": ["no", "yes"], "gold": i % 2})
        for i in range(count)
    ]


def test_local_tasks_draw_items_and_examples_apart(tmp_path):
    (tmp_path / "arc_easy.jsonl").write_text("\n".join(lines(60)))
    with gzip.open(tmp_path / "boolq.jsonl.gz", "wt") as file:
        file.write("\n".join(lines(60)))
    assert set(tasks.available(tmp_path)) == {"arc-easy", "boolq", *tasks.GENERATED}
    assert set(tasks.available(None)) == set(tasks.GENERATED)
    for name in ("arc-easy", "boolq"):
        made = tasks.task(name, tmp_path, 40, 1)
        assert made == tasks.task(name, tmp_path, 40, 1)
        assert not set(made.items) & set(made.examples)
        assert made.items[0].context.endswith("?\nAnswer:")
        for item in made.items:
            assert item.gold == int(item.context[10:].split("?")[0]) % 2


def test_what_cannot_be_asked_is_refused_in_one_line(tmp_path):
    for name, folder, limit, said in (
        ("arc", tmp_path, 5, "arc-easy"),
        ("arc-easy", None, 5, "folder"),
        ("arc-easy", tmp_path, 5, "no arc_easy.jsonl"),
        ("piqa", tmp_path, 45, "60 items"),
        ("openbookqa", tmp_path, 5, "not lines"),
        ("labels", None, 113, "112 items"),
        ("labels", None, 0, "limit"),
    ):
        (tmp_path / "piqa.jsonl").write_text("\n".join(lines(60)))
        (tmp_path / "openbook_qa.jsonl").write_text('{"query": "q", "choices": ["a"], "gold": 1}')
        with pytest.raises(BadOption, match=said) as refused:
            tasks.task(name, folder, limit)
        assert "\n" not in str(refused.value)
