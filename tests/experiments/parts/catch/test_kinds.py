"""Prompts of a kind: as many as asked, not all alike, the same for the same seed, long enough."""

import pytest

from experiments.parts.catch.kinds import KINDS, prompts


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_made_from_their_own_numbers(kind):
    made = prompts(kind, 6, 1)
    assert made[:4] == prompts(kind, 4, 1)
    assert len(set(made)) == 6
    assert made != prompts(kind, 6, 2)
    # A tokenizer of pieces makes at least one token of a word or a sign: enough to count sinks on.
    assert all(len(each.replace(".", " . ").split()) >= 50 for each in made)


def test_multiple_choice_asks_for_the_last_answer_alone():
    for each in prompts("multiple-choice", 5, 0):
        assert each.endswith("Answer:")
        assert each.count("Answer:") == 4


def test_worked_sums_are_right():
    for each in prompts("worked", 20, 0):
        sum_ = each.split("so ")[2].split(" = ")
        left = sum_[0].split(" - ")
        assert int(left[0]) - int(left[1]) == int(sum_[1].split()[0])
