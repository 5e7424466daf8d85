"""Sentences turn round when the effect does, and say nothing where the interval holds nothing."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments import (
    component_sections,
    components,
    moment,
    oats,
    protect,
    pruning,
    pruning_sections,
    terms,
    toggles,
)
from experiments.component_variants import _a3
from experiments.components import Config as Components
from experiments.components import Left
from experiments.intervals import Interval, interval, of_few
from experiments.moment import Loss
from experiments.oats import Matrix, Run
from experiments.progress import Progress
from experiments.pruning_judge import Judged, Tags
from experiments.pruning_judge import Loss as Pruned
from experiments.recalls import Recalls
from experiments.reconstruction import _storage
from experiments.reconstruction_rows import EXACT, RICHER, Row
from experiments.settings import BadOption
from tests.experiments.test_sentences import said

INPUTS = SimpleNamespace(text="t")


def about(mean: float, spread: float = 0.01, n: int = 9) -> Interval:
    return Interval(mean, mean - spread, mean + spread, n)


def test_a_perplexity_that_rises_is_not_said_to_fall():
    base = Loss("oats", "t", 0.4993, 60.0, about(0, 0))
    raised = moment._verdict(Loss("x", "t", 0.4993, 70.0, Interval(0.2, 0.1, 0.3, 9)), base)
    assert raised == "x raises the perplexity of oats on t by 22.1% [10.5%, 35.0%]."
    lowered = moment._verdict(Loss("x", "t", 0.4993, 50.0, Interval(-0.2, -0.3, -0.1, 9)), base)
    assert "lowers" in lowered
    unclear = moment._verdict(Loss("x", "t", 0.4993, 59.0, Interval(-0.1, -0.3, 0.1, 9)), base)
    assert "lowers" not in unclear
    assert "no clear difference" in unclear
    assert "NOT at equal budget" not in raised


def test_an_unequal_budget_is_said():
    base = Loss("oats", "t", 0.4993, 60.0, about(0, 0))
    text = moment._verdict(Loss("rounding", "t", 1.0, 50.0, about(-0.2)), base)
    assert "NOT at equal budget: 1.0000 of the weights against 0.4993" in text


def test_a_loss_that_is_no_number_is_no_tie():
    base = Loss("oats", "t", 0.5, 60.0, about(0, 0))
    none = about(float("nan"))
    assert "no number" in moment._verdict(Loss("x", "t", 0.5, float("nan"), none), base)
    gain = protect.Gain(0.7, "wanda", "protected", none, about(0.1), None, None)
    assert "no number" in protect.verdict(gain)
    gain = gain._replace(nll=about(-0.2), later_recall=None)
    assert "a better prediction, and no later sinks to compare" in protect.verdict(gain)


@pytest.mark.parametrize(
    ("module", "options", "word"),
    [
        (oats, {"accelerations": ()}, "--accelerations: give one"),
        (oats, {"side": 64, "timed": 0}, "--timed 0"),
        (terms, {"questions": ()}, "--questions"),
        (toggles, {"left": ("low", "low")}, "--left low low: give"),
        (components, {"questions": ()}, "--questions"),
        (protect, {"sparsities": ()}, "--sparsities"),
        (protect, {"bases": ()}, "--bases"),
    ],
)
def test_what_would_measure_nothing_is_refused_before_the_work(module, options, word):
    with pytest.raises(BadOption, match=word):
        module.run(module.Config(**options), Progress())


def beside(control: float, fast: float, many: int = 4) -> str:
    def run(error: float) -> Run:
        return Run(error, error, 1.0, 1.0)

    matrix = Matrix("w", (9, 9), run(1.0), run(control), [run(fast)])
    result: Any = SimpleNamespace(config=oats.Config(accelerations=(7,)), matrices=[matrix] * many)
    return oats._beside(result)


def test_acceleration_is_praised_only_where_it_helps():
    assert "not enough without acceleration" in beside(1.07, 0.98)
    assert "not enough everywhere" in beside(1.07, 1.02)
    assert "makes it worse" in beside(0.95, 1.02)
    assert "does not tell them apart" in beside(1.0, 1.0)
    assert "[" not in beside(1.07, 0.98, many=1)


@pytest.mark.parametrize(("richer", "words"), [(0.1, "is dear"), (0.9, "pays"), (0.5, "not clear")])
def test_a_low_rank_term_is_dear_only_where_more_bits_do_better(richer, words):
    names = ["layers.0.mlp.up_proj", "layers.3.mlp.up_proj"]
    errors = {RICHER: richer, EXACT: 0.5}
    table = {(name, way): Row(name, way, e, e, 4.0) for name in names for way, e in errors.items()}
    assert words in _storage("n of m", names, table, 32)


def test_one_block_settles_nothing_about_storage():
    names = ["layers.0.mlp.up_proj"]
    table = {
        (names[0], way): Row(names[0], way, e, e, 4.0) for way, e in ((RICHER, 0.1), (EXACT, 1.0))
    }
    assert "not clear" in _storage("1 of 1", names, table, 32)


def left(nll: float, first: float) -> Left:
    share = about(first)
    return Left(0.8, 0.8, 9.0, about(nll), about(-0.1), Recalls(share, share, share, share))


def test_controls_that_do_better_than_a3_are_counted():
    config = Components(compressions=(0.121, 0.124))
    names = list(_a3(config))
    assert len(names) == len(set(names)) == 2 * 5 + 3  # no two of them share a name
    found = {name: left(0.5 if name.startswith("A3") else 0.2, 1.0) for name in names}
    result: Any = SimpleNamespace(
        config=config, found={"dense": left(0, 1)} | found, accuracy=0.4, inputs=INPUTS
    )
    text = component_sections._perplexities(result, found).text
    assert "12.1% of the weights removed A3 costs +0.500" in text[0]
    assert "0 of 4 controls lose clearly more and 4 clearly less" in text[0]


def test_whether_the_columns_at_bos_matter_is_told():
    own = left(0.8, 1.0)
    assert "2 controls 1 lose clearly more" in component_sections._apart(
        own, [left(2.0, 0.4), left(0.8, 1.0)]
    )
    better = component_sections._apart(own, [left(0.1, 1.0)])
    assert "0 lose clearly more (intervals apart), 1 clearly less; 0 keep clearly fewer" in better


def test_an_amount_that_was_not_matched_settles_nothing():
    shares = {"both": 0.9, "sparse": 0.1, "low": 0.8, "as_far": 0.9}
    assert "it is not only how much was removed" in said(**shares)
    text = said(removed={"sparse": 0.91, "as_far": 0.60}, **shares)
    assert "it is not only how much was removed" not in text
    assert "less was removed from it" in text


def test_groups_without_sinks_have_no_interval_that_holds_zero():
    def text(*first: Interval | None) -> str:
        told = [toggles.Difference(f"layer {i}", x, None) for i, x in enumerate(first)]
        result: Any = SimpleNamespace(config=toggles.Config(by="layer"), differences=told)
        return " ".join(toggles._text(result))

    assert "In 1 of 2 groups" in text(about(0.5), about(0.0), None)
    assert "0.1 groups of 2" in text(about(0.5), about(0.0))
    assert "1 fewer (layer 0)" in text(about(-0.5))
    assert "no first-token sinks" in text(None, None)
    assert "holds zero" not in text(None, None)


def judged(method: str, ppl: float, beside: Interval | None, ari: float = 0.5) -> Judged:
    share = about(0.8)
    return Judged(
        pruning.Variant(method, 0.5),
        "" if beside is None else "wanda",
        Pruned(ppl, 4, about(0.5), beside),
        None,
        Recalls(share, share, share, share),
        None if beside is None else about(0.0),
        Tags(about(ari), about(ari), about(0.1), about(ari - 0.5)),
        {},
    )


def verdict(*variants: Judged) -> str:
    return pruning_sections._verdict(SimpleNamespace(judged=list(variants)), 0.5)  # type: ignore[arg-type]


def test_who_is_first_by_chance_is_said_to_be():
    clear, near = about(0.3), about(0.005)
    text = verdict(
        judged("wanda", 40, None), judged("oats", 40.1, near), judged("magnitude", 600, clear)
    )
    assert "wanda has the lowest perplexity, 40 (not clear of oats +0.005 [-0.005, +0.015]" in text
    assert "magnitude" not in text
    assert "clear of all 1 others" in verdict(judged("wanda", 40, None), judged("oats", 60, clear))
    assert "(-0.300 [-0.310, -0.290] nats a token beside wanda)" in verdict(
        judged("wanda", 40, None), judged("oats", 30, about(-0.3))
    )


def test_a_model_whose_loss_is_no_number_does_not_win():
    text = verdict(
        judged("magnitude", float("nan"), about(float("nan"))), judged("wanda", 40, None)
    )
    assert "wanda has the lowest perplexity, 40" in text
    assert "no perplexity is finite" in verdict(judged("oats", float("nan"), None))


def test_tags_are_not_kept_best_by_a_point():
    text = verdict(judged("wanda", 40, None, ari=0.505), judged("oats", 50, about(0.2), ari=0.2))
    assert "+0.005 [-0.005, +0.015] to the dense model's, not clear of none" in text
    assert "kept best" not in text


def test_allocations_count_numbers_and_nothing_else():
    with pytest.raises(BadOption, match="uniform"):
        pruning.check(pruning.Config(measure="bits", allocations=("uniform", "owl")))


def test_the_coverage_that_a_caption_states_is_the_bootstraps():
    """Normal units: the share of draws whose interval holds their mean."""
    generator = np.random.default_rng(0)
    assert of_few(10) == ""
    assert "75% of cases at n = 3" in of_few(3)
    for n, share in ((3, 0.75), (8, 0.90)):
        held = [
            found.low < 0 < found.high
            for found in (interval(generator.normal(size=n)) for _ in range(400))
        ]
        assert np.mean(held) == pytest.approx(share, abs=0.06)  # 3 standard errors
