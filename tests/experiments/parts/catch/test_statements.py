"""No word tells the label, no group is in two folds, and a head's output is split without rest."""

from collections import Counter

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.parts.catch.facts import BLAME, CITIES, PRAISE
from experiments.parts.catch.statements import FOLDS, given, parts, statements
from mech.capture import capture_blocks


def test_every_city_and_country_stands_once_in_a_true_and_once_in_a_false_sentence():
    asked = statements("cities", 100, 3)
    country = [text.split(" is in ")[1] for text in asked.texts]
    city = [text.split(" is in ")[0] for text in asked.texts]
    for words in (country, city):
        seen = Counter(zip(words, asked.label.tolist(), strict=True))
        assert set(seen.values()) == {1}
        assert len(seen) == 200
    folds = {(word, int(f)) for word, f in zip(country + city, [*asked.fold] * 2, strict=True)}
    assert len(folds) == 200  # each word in one fold


def test_true_sentences_are_those_of_the_table():
    asked = statements("cities", 60, 1)
    true = {f"The city of {city} is in {country}." for city, country in CITIES}
    assert [text in true for text in asked.texts] == asked.label.astype(bool).tolist()


def test_a_word_of_mood_is_in_one_fold_and_folds_are_balanced():
    asked = statements("moods", 60, 0)
    assert set(np.bincount(asked.fold, asked.label) / np.bincount(asked.fold)) == {0.5}
    for text, label in zip(asked.texts, asked.label.tolist(), strict=True):
        assert text.split(" was ")[1][:-1] in (PRAISE if label else BLAME)
    assert all(len(set(asked.fold[asked.group == g])) == 1 for g in np.unique(asked.group))
    assert len(np.unique(asked.fold)) == FOLDS


def test_the_same_seed_gives_the_same_statements_and_another_gives_others():
    assert statements("cities", 40, 5).texts == statements("cities", 40, 5).texts
    assert statements("cities", 40, 5).texts != statements("cities", 40, 6).texts


def test_facts_are_different_words():
    assert len({c for c, _ in CITIES}) == len({k for _, k in CITIES}) == len(CITIES) == 100
    assert len({*PRAISE, *BLAME}) == 60


def test_the_parts_are_what_attention_and_values_give():
    torch.manual_seed(0)
    settings = LlamaConfig(
        hidden_size=24,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=29,
    )
    model = LlamaForCausalLM(settings).eval()
    generator = torch.Generator().manual_seed(0)
    lengths = [9, 7, 9, 7, 7]
    ids = [torch.randint(0, 29, (n,), generator=generator) for n in lengths]
    stop = [n - 3 for n in lengths]
    at_stop, after = given(model, ids, stop, 0, lambda _: None)
    assert not at_stop.stop.any()
    split = parts(after, 0.0)
    assert np.allclose(split["tag"] + split["rest"], split["whole"], atol=1e-6)
    for i, each in enumerate(ids):
        z = [block.z[0] for block in _blocks(model, each)]
        for layer, found in enumerate(z):
            assert np.allclose(at_stop.whole[layer, i], found[:, stop[i]], atol=1e-5)
            assert np.allclose(after.whole[layer, i], found[:, -1], atol=1e-5)
    assert parts(after, 1.1)["tag"] == pytest.approx(0.0)


def _blocks(model, ids):
    return capture_blocks(model, ids[None], lambda block: block)
