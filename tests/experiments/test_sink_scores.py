"""α of the measurements: equation 1 itself under full attention, by reach behind a window."""

import numpy as np
import pytest

from experiments.measure import counts, sink_scores
from mech.capture import capture_blocks
from mech.planted.build import planted
from mech.probes.sinks import score


def scores(made, ids=None):
    return sink_scores(made.model, made.tokens if ids is None else ids, lambda _: None)


def plain(model, ids):
    return np.stack(capture_blocks(model, ids, lambda block: score(block.received)))


def test_full_attention_is_read_by_equation_1_to_the_bit():
    made = planted(1)
    np.testing.assert_array_equal(scores(made), plain(made.model, made.tokens))


@pytest.mark.parametrize("window", [24, 64])
def test_a_window_without_preference_makes_no_sinks(window):
    """Neither by false ones of its first keys (24), nor by a divisor of zero."""
    found = counts(scores(planted(1, kind="uniform", window=window)))
    assert found.first.mean == found.later.mean == 0


def test_behind_a_window_a_sink_is_not_divided_by_queries_that_cannot_see_it():
    """Windowed score · reach = causal score · (T - k), at keys that can be judged."""
    made = planted(1, window=64)
    seen, causal = scores(made), plain(made.model, made.tokens)
    seq = seen.shape[-1]
    reach = np.minimum(64, seq - np.arange(seq))
    judged = seen > 0
    lifted = causal * (seq - np.arange(seq)) / reach
    np.testing.assert_allclose(seen[judged], lifted[judged], rtol=1e-5)
    assert (seen > causal * 1.5).any()
