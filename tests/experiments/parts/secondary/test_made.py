"""Secondary sinks: which tokens are meant, and what rescaling a write changes."""

import numpy as np
import pytest
import torch

from experiments.parts.secondary import made
from experiments.parts.secondary.made import ATTENTION, MLP, Rescaled
from experiments.parts.work import Amounts, prepared
from experiments.probing.survey_secondary import Tracks, place
from experiments.progress import Progress
from experiments.settings import Reading
from mech.probes.secondary import Span

LAYERS, SEQ = 6, 9
SPAN = Span(1, 5)


def track(like, score=None):
    """A prompt whose token t is like the first one after the blocks of like[t]."""
    cosine = np.full((LAYERS, SEQ), 0.1)
    cosine[:, 0] = 1.0
    for token, layers in like.items():
        cosine[layers, token] = 0.95
    later = np.ones(SEQ, bool)
    later[[0, SEQ - 1]] = False
    norm = np.ones((LAYERS, SEQ))
    norm[1:5, 0] = 50
    score = np.zeros((LAYERS, SEQ)) if score is None else score
    none = np.zeros((LAYERS, SEQ))
    return Tracks(norm, cosine, score, none.astype(int), none, none, np.arange(SEQ), later, 0, 1.0)


def test_a_pair_is_the_token_and_the_block_that_reads_a_flagged_state():
    prompt = track({3: [1, 2], 5: [4], 7: [0], SEQ - 1: [1, 2, 3]})
    found = made.flagged([prompt], [SPAN])
    # 7 is like it outside the span only; the last token is not countable.
    expected = {(2, 3), (3, 3), (5, 5)}
    assert {(int(b), int(t)) for b, t in np.argwhere(found.blocks[0])} == expected
    assert set(np.flatnonzero(found.tokens[0])) == {3, 5}
    assert found.others[0].sum() == 2
    assert not (found.others & found.tokens).any()
    assert not found.others[0][[0, SEQ - 1]].any()


def test_measures_of_the_pairs_by_hand():
    score = np.arange(LAYERS * SEQ, dtype=float).reshape(LAYERS, SEQ)
    prompt, empty = track({3: [1, 2], 5: [4]}, score), track({}, score)
    found = made.flagged([prompt, empty], [SPAN, SPAN])
    read = made.read([prompt, empty], found)
    assert read["drawn"][0] == score[2, 3] + score[3, 3] + score[5, 5]
    assert read["lasted"][0] == 3
    assert read["primary"][0] == score[2:6, 0].mean()
    assert read["middle"][0] == 0.0  # made after blocks 1 and 4 of 0 … 5, the middle is 2 and 3
    assert all(np.isnan(values[1]) for values in read.values())
    assert made.middle(made.flagged([track({4: [2], 6: [1]})], [SPAN]))[0] == 0.5


def test_the_maker_is_a_block_of_the_span():
    prompts = []
    for _ in range(3):
        prompt = track({3: [1, 2], 5: [2]})
        added = np.zeros((LAYERS, SEQ))
        added[1], added[5] = 1.0, 9.0  # block 5 is behind the span
        prompts.append(prompt._replace(mlp_along=added))
    assert place("phase", SPAN, prompts, [SPAN] * 3).maker == 1
    assert place("phase", Span(1, 6), prompts, [Span(1, 6)] * 3).maker == 5


def test_what_is_left_is_a_ratio_of_sums_over_the_prompts_that_have_any():
    before, after = np.array([4.0, 1.0, np.nan]), np.array([1.0, 1.0, np.nan])
    found = made.left(after, before)
    assert found is not None
    assert (found.mean, found.n) == (0.4, 2)
    assert made.left(after[1:], before[1:]) is None


@pytest.mark.parametrize("part", [MLP, ATTENTION])
def test_a_write_is_rescaled_at_the_marked_tokens_alone(model, part):
    amounts = Amounts(calibration=1, calibration_seq=8, windows=2, context=8, sequences=5, seq=64)
    work = prepared(Reading(str(model)), amounts, Progress())
    where = torch.rand(work.sequences.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    where[:, 0] = False  # the first token is the direction that the others are read along
    marked = where.numpy()

    def along(factor):
        edit = None if factor is None else Rescaled(0, part, factor, marked)
        name = "mlp_along" if part == MLP else "attn_along"
        found = made.tracks(work.loaded.model, work.sequences, lambda _: None, edit)
        return np.array([getattr(track, name)[0] for track in found])

    dense, same, none, twice = (along(factor) for factor in (None, 1.0, 0.0, 2.0))
    np.testing.assert_array_equal(dense, same)
    np.testing.assert_array_equal(none[marked], 0)
    np.testing.assert_array_equal(none[~marked], dense[~marked]) if part == ATTENTION else None
    if part == ATTENTION:
        np.testing.assert_allclose(twice[marked], 2 * dense[marked], rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_allclose(twice[~marked], dense[~marked], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(twice[marked], 2 * dense[marked], rtol=1e-5, atol=1e-6)
    assert np.abs(dense[marked]).max() > 0
