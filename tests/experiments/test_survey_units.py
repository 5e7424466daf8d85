"""Units of a survey are prompts, states are read by the next block, and cells hold no "nan"."""

import numpy as np
import pytest
import torch
import transformers

from experiments.intervals import Interval
from experiments.probing import survey_counts, survey_streams
from experiments.probing.bootstrap import over_prompts, rank_correlation
from experiments.probing.cells import NONE, estimate, number, percent
from experiments.probing.survey import survey
from experiments.probing.survey_heads import heads_found
from experiments.probing.survey_secondary import Tracks, places
from experiments.probing.survey_sections import sections
from experiments.probing.survey_stacked import Stacked
from mech.planted.build import planted
from mech.probes.spells import NEVER, Spell

LAYERS, SEQ = 9, 70


def track(*, raised=True, like=(), trend=0.0):
    """A first token of norm 300 after blocks 2 to 6, and tokens that have its direction there."""
    norm = np.ones((LAYERS, SEQ))
    norm[2:7, 0] = 300.0 if raised else 1.5
    cosine = np.zeros((LAYERS, SEQ))
    cosine[2:7, [0, *like]] = 1.0
    score = np.zeros((LAYERS, SEQ))
    score[:, 0] = 0.5 - 0.1 * len(like)
    score[2, 0] = trend * len(like)
    zero = np.zeros((LAYERS, SEQ))
    later = (np.arange(SEQ) > 0) & (np.arange(SEQ) < SEQ - 16)
    ids = np.arange(SEQ)
    return Tracks(norm, cosine, score, zero.astype(int), zero, zero, ids, later, 0, 1.0)


def test_a_prompt_whose_own_first_token_is_not_raised_has_no_secondary_sinks():
    every = tuple(range(1, SEQ))
    found = places([track(like=(5,)), track(like=(5,)), track(raised=False, like=every)])
    assert [place.name for place in found] == ["strict", "phase 1"]
    for place in found:
        assert place.count is not None
        assert place.count.mean == pytest.approx(2 / 3)
        assert place.agreed == pytest.approx(2 / 3)


def test_one_prompt_with_a_raised_first_token_does_not_speak_for_five():
    assert places([track(), *[track(raised=False)] * 4]) == []


def test_crowding_is_of_the_blocks_that_read_the_span():
    """Block 2 writes the sinks and does not read them: what it attends to says nothing."""
    found = [track(like=tuple(range(5, 5 + n)), trend=100.0) for n in (1, 2, 3, 1, 2, 3)]
    for place in places(found):
        assert place.crowding is not None
        assert place.crowding.mean == pytest.approx(-1)


def test_a_nearly_massive_state_is_read_by_the_next_block():
    nearly = np.zeros((1, LAYERS, SEQ), bool)
    nearly[0, 3, 20] = True
    on = np.zeros((LAYERS, SEQ), int)
    on[3:6, 20], on[4, 30] = (1, 2, 4), 4
    stacked = {"mass": np.zeros((1, LAYERS, 4)), "nearly": nearly}
    one = track()._replace(heads_on=on)

    class Two(Stacked):
        def of(self, field: str) -> np.ndarray:
            return np.repeat(stacked[field], 2, axis=0)

    heavy, others = survey_counts.places_on(Two([]), [one, one])
    assert heavy == over_prompts(np.full(2, 0.5))
    assert others is not None
    assert others.mean == pytest.approx(1 / (one.later.sum() - 1))


def test_a_set_of_heads_is_sure_only_with_enough_prompts():
    """Three of three prompts: Wilson's interval begins at 0.44. Sometimes is not always."""
    has = np.zeros((3, 2, 4), bool)
    has[:, 0, 1] = has[0, 1, 2] = True
    found = heads_found(has, has, np.where(has, 0.95, 0.1), np.where(has, 0.1, 1.0))
    for keepers in (found.first, found.later):
        assert (keepers.always, keepers.sure, keepers.never) == (1, 0, 6)
        assert keepers.stability is None
    d = found.dormant
    assert (d.resting_always, d.resting_sometimes) == (d.quiet_always, d.quiet_sometimes) == (1, 1)
    many = np.repeat(has[:1], 10, axis=0)
    assert heads_found(many, many, many * 1.0, many * 1.0).first.sure == 2


def test_a_prompt_of_many_spells_is_one_prompt():
    def spell(token, lifetime):
        return Spell(0, token, 5, 1, NEVER, lifetime, 2e4, 1, 0.9, float("nan"))

    spells = [[spell(t, 1) for t in range(1, 10)], [spell(1, 11)]]
    (kind,) = survey_streams.massive_found(spells, np.zeros(2, int), 1000.0).kinds
    assert kind.lifetime is not None
    assert (kind.lifetime.mean, kind.lifetime.n, kind.count) == (6, 2, 10)


def test_a_dimension_is_named_from_half_of_the_layers_on_and_from_above():
    deviation = np.ones((2, 4, 50))
    deviation[:, :1, 7] = deviation[:, :2, 8] = 2.0
    deviation[..., 9] = 0.0
    assert survey_streams.spread(deviation).dims == {8: (1.0, 0.5)}


def test_prompts_that_differ_give_a_wide_interval():
    x = [np.array([1.0, 2.0, 3.0, 4.0])] * 6
    y = [np.array([1.0, 2.0, 3.0, 4.0])] * 3 + [np.array([3.0, 1.0, 4.0, 2.0])] * 3
    found = rank_correlation(x, y)
    assert found is not None
    assert found.n == 6
    assert found.high - found.low > 0.2


def test_a_window_that_only_later_prompts_meet_is_reported(generator):
    config = transformers.MistralConfig(
        vocab_size=31, hidden_size=16, intermediate_size=16, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=1, sliding_window=70, pad_token_id=0,
    )  # fmt: skip
    model = transformers.MistralForCausalLM(config).eval()
    ids = torch.randint(3, 31, (6, 75), generator=generator)
    mask = torch.ones_like(ids)
    mask[:4, 66:] = 0
    assert survey(model, ids, mask).sinks.windowed == [0, 1, 2]
    assert survey(model, ids[:4], mask[:4]).sinks.windowed == []


def test_a_threshold_that_no_preference_passes_is_read_by_reach_as_well():
    """H_128 / 128 = 0.042: at epsilon 0.04 all first tokens are 'sinks', and none is countable."""
    made = planted(1, kind="uniform", batch=2)
    rows = sections(survey(made.model, made.tokens, epsilon=0.04))[0].tables[0].rows
    counts = {row[0]: row[2] for row in rows}
    assert (counts["primary"], counts["primary, by reach"]) == ("32", "0")
    plain = sections(survey(made.model, made.tokens))[0].tables[0].rows
    assert "primary, by reach" not in {row[0] for row in plain}


def test_cells_are_numbers_that_people_read():
    assert [number(x) for x in (0.085312345, -0.0, 12345.6, 99.96, float("nan"))] == [
        "0.0853", "0", "12,346", "100", NONE,
    ]  # fmt: skip
    some = Interval(0.0853, 0.0811, 0.0897, 4)
    assert estimate(some) == estimate(some, 4) == "0.0853 [0.0811, 0.0897]"
    assert estimate(some, 9) == "0.0853 [0.0811, 0.0897], n = 4"
    assert percent(some) == "8.53% [8.11%, 8.97%]"
    assert estimate(None) == percent(None) == NONE
