"""Which layers' sink heads are pruned, and what stands in the model meanwhile."""

import pytest

from bridge.methods.sink_heads import SinkHeads
from experiments.parts import sink_layers
from experiments.parts.standing import each, retained
from experiments.parts.work import Amounts, prepared
from experiments.progress import Progress
from experiments.settings import Reading

HEADS = ((0, 1), (0, 2), (1, 0), (3, 0), (3, 1), (3, 5), (4, 4))


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        ([3, 4, 1, 0], {3, 4}),
        ([0, 1, 4, 3], {0, 1, 4}),
        ([4, 1, 0, 3], {4, 1, 0}),
    ],
)
def test_half_of_the_heads_are_whole_layers_in_the_order_given(order, wanted):
    found = sink_layers.half(HEADS, order)
    assert {layer for layer, _ in found} == wanted
    assert set(found) == {head for head in HEADS if head[0] in wanted}
    assert 2 * len(found) >= len(HEADS)
    last = [head for head in found if head[0] != order[len(wanted) - 1]]
    assert 2 * len(last) < len(HEADS)


@pytest.mark.parametrize("count", range(1, len(HEADS) + 1))
def test_as_many_heads_of_random_layers_are_whole_layers(count):
    found = sink_layers.as_many(HEADS, [0, 1, 3, 4], count, seed=0)
    layers = {layer for layer, _ in found}
    assert set(found) == {head for head in HEADS if head[0] in layers}
    # Layers have 2, 1, 3 and 1 heads: every count is a sum of some.
    assert len(found) == count
    draws = {sink_layers.as_many(HEADS, [0, 1, 3, 4], 3, seed) for seed in range(20)}
    assert len(draws) > 1


def test_every_choice_stands_once_and_leaves_the_model_as_it_was(model):
    amounts = Amounts(calibration=3, calibration_seq=64, windows=3, context=16, sequences=2, seq=64)
    work = prepared(Reading(str(model)), amounts, Progress())
    methods = {
        "few": SinkHeads(((0, 0), (0, 1)), columns=2),
        "all": SinkHeads(((0, 0), (0, 1)), columns=32),
    }
    found = each(work, methods, work.windows, Progress())
    again = each(work, {}, work.windows, Progress())
    assert (again["dense"].nll == found["dense"].nll).all()
    # All columns are the head itself.
    assert found["all"].nll == pytest.approx(found["dense"].nll, abs=1e-6)
    assert (found["few"].nll != found["dense"].nll).any()
    assert found["few"].kept < found["all"].kept == found["dense"].kept == 1
    kept = retained(found["dense"], found["dense"])
    assert kept is None or kept.mean == 1
