"""The probes of a language model, unchanged, on the theorem's two-layer model.

Zhang, Khan, Papyan 2025, arXiv:2502.00919, Section 4: [SEP] is the sink of every later token,
tags them along its value, and they form two segments.
"""

import numpy as np
import pytest

from mech.probes.outliers import int8_outlier_dims
from mech.probes.segments import segments
from mech.probes.sinks import count_sinks, received_of, score, sinks
from mech.trace import Trace
from toy.transformer import forward, theorem_weights

SEQ, S_TAG = 70, 40.0


@pytest.fixture(params=[1, 23, 50])
def seen(request):
    """(t, trace): [SEP] at position t, counted from 1; five sequences."""
    x = np.random.default_rng(request.param).uniform(-1, 1, (5, SEQ))
    _, trace = forward(theorem_weights(S_TAG), x, request.param)
    return request.param, trace


def test_a_toy_trace_has_the_fields_and_axes_of_ours(seen):
    _, trace = seen
    assert trace._fields == Trace._fields
    assert Trace(*trace).resid.shape == (3, 5, SEQ, 2)


def test_the_sink_of_the_first_layer_is_sep_with_all_attention(seen):
    t, trace = seen
    alpha = score(received_of(trace))[0, :, 0]
    # 1 - A_{i,t} <= (T - 1) e^{1 + X² - s} for each later query (theory: the catch); [SEP]'s
    # own query keeps even more to itself.
    np.testing.assert_allclose(alpha[:, t - 1], 1, atol=SEQ * np.exp(2 - S_TAG) + 1e-15 * SEQ)
    assert sinks(alpha)[:, t - 1].all()
    # After it nobody else is looked at, so no false sinks at the tail either.
    assert not sinks(alpha)[:, t:].any()
    count = count_sinks(score(received_of(trace)))
    assert count.first[0, 0] == 1 if t == 1 else count.later[0, 0] >= 1


def test_the_tag_is_the_outlier_dimension_between_the_layers(seen):
    _, trace = seen
    # Coordinate 1 is s - 1 = 39 in every tagged token; the numbers stay within [-1, 1].
    assert int8_outlier_dims(trace.resid[1:2]).tolist() == [False, True]
    assert int8_outlier_dims(trace.resid[:1], tokens=2 / SEQ).tolist() == [False, False]


@pytest.mark.parametrize("seen", [23, 50], indirect=True)
def test_the_head_writes_two_segments(seen):
    t, trace = seen
    for z, stream in zip(trace.z[0, :, 0], trace.resid[1], strict=True):
        head = segments(z, 2)
        # Along W_V1 the tag is all there is: s_tag after [SEP] and at it, 1 before it.
        assert head.share[0] > 1 - 1e-12
        assert head.colour[: t - 1, 0].max() < 0.1
        assert head.colour[t - 1 :, 0].min() > 0.9
        # In the stream [SEP]'s own tag is erased again; what follows it is the other segment.
        tagged = segments(stream, 2).colour[:, 0] > 0.5
        np.testing.assert_array_equal(tagged, np.arange(SEQ) >= t)
