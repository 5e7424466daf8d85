"""What the report says is true whatever the numbers are."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments import effects, perplexity, terms, toy_train, toy_verify
from experiments.probing import prompted

NAN = float("nan")


def said(**recall: float) -> str:
    """The text of `terms` for these shares of the first-token sinks."""
    names = {"both": terms.BOTH, "sparse": terms.SPARSE, "low": terms.LOW}
    names |= {"plain": terms.PLAIN, "random": terms.RANDOM}
    found = {
        names[name]: SimpleNamespace(kept=SimpleNamespace(first_recall=r, later_recall=NAN))
        for name, r in recall.items()
    }
    config = terms.Config()
    result: Any = SimpleNamespace(found=found, config=config)
    return " ".join(terms._text(result))


def test_the_papers_story_is_told_when_the_numbers_tell_it():
    text = said(both=0.9, sparse=0.1, low=0.8, plain=0.9, random=0.1)
    for words in ("it is the low-rank one", "does not follow", "these directions that matter"):
        assert words in text


def test_nothing_is_lost_and_nothing_is_said_to_be():
    text = said(both=1.0, sparse=0.95, low=0.95, plain=0.95, random=1.0)
    for words in ("neither", "sparsity costs few", "no clear difference"):
        assert words in text


def test_the_opposite_of_the_papers_is_said_too():
    text = said(both=0.2, sparse=0.9, low=0.1, plain=0.3, random=0.9)
    for words in ("unlike in the papers", "keeps more of them", "better than OATS' own"):
        assert words in text


def test_a_model_without_sinks_has_nothing_to_carry():
    text = said(both=NAN, sparse=NAN, low=NAN, plain=NAN, random=NAN)
    assert "no first-token sinks" in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("share", "text"), [(0.5, "50%"), (0.29, "29%"), (1e-9, "1e-07%"), (0.999999, "99.9999%")]
)
def test_a_percentage_is_not_rounded_away(share, text):
    assert effects.percent(share) == text


def diagnosis(found: list[bool], ratio: float, value: float) -> Any:
    many = np.full(len(found), value)
    names = ["fvu", "sink", "tag_gap", "s_num", "s_tag", "rank_V1", "rank_QK"]
    return SimpleNamespace(
        found=np.array(found),
        ratio_QK=np.full(len(found), ratio),
        ratio_V1=np.full(len(found), ratio),
        finite=np.isfinite(many),
        sequences=9,
        **dict.fromkeys(names, many),
    )


@pytest.mark.parametrize(("ratio", "words"), [(0.01, "is of low rank"), (0.5, "is not of low")])
def test_the_rank_that_is_told_is_the_rank_that_was_found(ratio, words):
    result: Any = SimpleNamespace(diagnosis=diagnosis([True, True], ratio, 1.0))
    assert toy_train._meaning(result).count(words) == 2


def test_seeds_that_all_diverged_are_dashes():
    result: Any = SimpleNamespace(diagnosis=diagnosis([False, False], NAN, NAN))
    assert "nan" not in toy_train._meaning(result)
    table = toy_train._table(result)
    assert {row[1] for row in table.rows} == {"–"}
    assert "2 seeds met a loss that is not finite" in table.caption


def test_a_claim_that_is_no_number_fails():
    assert not toy_verify.ClaimCheck("c", "", "", cases=3, violations=1, largest=NAN).holds


def test_one_window_has_no_standard_error():
    result: Any = SimpleNamespace(
        inputs=SimpleNamespace(model="m", text="t", bos="b"),
        ppl=2.0, nll=0.7, standard_error=NAN, scored=3, windows=1, definition="d",
    )  # fmt: skip
    (section,) = perplexity.sections(result)
    assert section.tables[0].rows[0][2] == "0.7000 ± –"


def test_too_few_sequences_say_so_and_nothing_about_other_heads():
    assert "fewer than six of the others" in prompted.on_text(None)
