"""What the report says is true whatever the numbers are."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments import (
    effects,
    naming,
    perplexity,
    terms,
    terms_words,
    toy_train,
    toy_verify,
)
from experiments.intervals import Interval
from experiments.probing import prompted

NAN = float("nan")


SURE, UNSURE = 0.01, 0.5


def said(spread: float = SURE, removed: Any = None, **recall: float) -> str:
    """The text of `terms` for these shares of the first-token sinks; intervals are ± spread."""
    names = {"both": naming.BOTH, "sparse": naming.SPARSE, "low": naming.LOW}
    names |= {"plain": naming.PLAIN, "random": naming.RANDOM, "as_far": naming.AS_FAR}
    names |= {"top": naming.TOP, "norm": naming.NORM, "projection": naming.PROJECTION}
    shares = {names[name]: share for name, share in recall.items()} | {naming.DENSE: 1.0}

    def within(mean: float) -> Interval | None:
        return None if np.isnan(mean) else Interval(mean, mean - spread, mean + spread, 9)

    kept = {
        name: SimpleNamespace(first_recall=within(share), later_recall=None)
        for name, share in shares.items()
    }
    if np.isnan(recall["both"]):
        kept[naming.DENSE].first_recall = None
    contrasts = [
        terms.Contrast(a, b, within(shares[b] - shares[a]), None, Interval(0, 0, 0, 9))
        for a, b in terms.PAIRS
        if {a, b} <= set(shares)
    ]
    lacking = dict.fromkeys(shares, 0.5) | {names[n]: x for n, x in (removed or {}).items()}
    config = terms.Config()
    result: Any = SimpleNamespace(config=config, recalls=kept, contrasts=contrasts, removed=lacking)
    return " ".join(terms_words.text(result))


def test_the_papers_story_is_told_when_the_numbers_tell_it():
    text = said(both=0.9, sparse=0.1, low=0.8, plain=0.9, random=0.1, as_far=0.9)
    for words in (
        *("it is the low-rank one", "does not follow", "these directions that matter"),
        *("0.700 [+0.690, +0.710] more, paired",),
        "it is not only how much was removed",
    ):
        assert words in text


def test_nothing_is_lost_and_nothing_is_said_to_be():
    text = said(UNSURE, both=1.0, sparse=0.95, low=0.95, plain=0.96, random=1.0, as_far=0.96)
    for words in ("neither", "clearly more nor clearly fewer", "no clear difference"):
        assert words in text


def test_the_same_shares_are_told_apart_by_their_intervals():
    """It is the interval that decides, and no threshold on the share."""
    shares = {"both": 1.0, "sparse": 0.9, "low": 1.0, "plain": 0.95, "random": 0.97}
    sure, unsure = said(SURE, **shares), said(UNSURE, **shares)
    assert "it is the low-rank one" in sure
    assert "it is the low-rank one" not in unsure
    assert "neither" in unsure


def test_the_opposite_of_the_papers_is_said_too():
    text = said(both=0.2, sparse=0.9, low=0.1, plain=0.3, random=0.9, as_far=0.1)
    for words in (
        *("unlike in the papers", "keeps more of them", "better than OATS' own"),
        "even fewer sinks survive",
    ):
        assert words in text


def test_the_top_component_beside_its_control():
    shares = {"both": 1.0, "sparse": 0.0, "low": 1.0}
    text = said(**shares, top=0.1, norm=0.9, projection=0.99)
    assert "it is that direction, and not the amount" in text
    assert "0.99 [0.98, 1.00]" in text
    assert "no clear difference whether it is that direction" in said(
        **shares, top=0.1, norm=0.1, projection=0.99
    )


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
        sparse=None,
    )  # fmt: skip
    (section,) = perplexity.sections(result)
    assert section.tables[0].rows[0][2] == "0.7000 ± –"


def test_too_few_sequences_say_so_and_nothing_about_other_heads():
    assert "fewer than six of the others" in prompted.on_text(None)
