"""A narrow direction that k-means does not see is read; a position is not taken for a tag."""

import numpy as np
import pytest

from experiments.probing.readout import accuracies, read_out, section

SEQ, D_MODEL, SEQUENCES, LAYER = 70, 23, 11, 1


def texts(*, fixed: bool):
    """Labels whose later sink stands at one place in all sequences, or anywhere."""
    generator = np.random.default_rng(0)
    late = []
    for _ in range(SEQUENCES):
        sink = 33 if fixed else int(generator.integers(12, 58))
        label = (np.arange(SEQ) > sink).astype(int)
        label[[0, sink]] = -1
        late.append(label)
    states = generator.normal(size=(6, SEQUENCES, SEQ, D_MODEL))
    states[..., 0] *= 9  # the widest direction has nothing to do with it
    for index, label in enumerate(late):
        states[2:4, index, :, 3] += 3 * (2 * label[:, None] - 1).T * (label >= 0)
    return late, states


def test_a_tag_is_read_where_it_was_planted_and_nowhere_else():
    found = read_out(*texts(fixed=False), LAYER)
    assert found is not None
    assert [row.depth for row in found.at] == [1, 2, 3, 5]
    read = {row.depth: row for row in found.at}
    assert found.position.mean < 0.9
    assert all(read[depth].accuracy.mean > 0.9 for depth in (2, 3))
    assert all(read[depth].above_position.low > 0 for depth in (2, 3))
    assert all(read[depth].above_input.low > 0.2 for depth in (2, 3))
    assert all(abs(read[depth].accuracy.mean - 0.5) < 0.1 for depth in (1, 5))
    assert read[5].above_input.low < 0.05
    assert read[1].above_input.mean == 0
    told = section(found)
    assert "readable after 2, 3 blocks" in told.text[0]
    assert [row[0] for row in told.tables[0].rows] == ["1", "2", "3", "5"]


def test_a_sink_that_always_stands_at_one_place_is_known_from_the_position():
    found = read_out(*texts(fixed=True), LAYER)
    assert found is not None
    assert found.position.mean > 0.95
    assert all(row.above_position.low <= 0 for row in found.at)
    assert "not shown" in section(found).text[0]


def test_no_sequence_is_asked_of_a_line_that_it_helped_to_fit():
    """Labels at random, more features than tokens: the training set would be fitted perfectly."""
    generator = np.random.default_rng(1)
    features = [generator.normal(size=(12, 200)) for _ in range(10)]
    labels = [generator.permutation([0, 1] * 6) for _ in range(10)]
    found = accuracies(features, labels)
    assert found.mean() == pytest.approx(0.5, abs=0.15)


def test_a_class_counts_as_much_as_the_other():
    features = [np.ones((20, 1)) for _ in range(6)]
    labels = [np.repeat([0, 1], [18, 2]) for _ in range(6)]
    np.testing.assert_array_equal(accuracies(features, labels), 0.5)


def test_too_few_sequences_are_not_asked():
    late, states = texts(fixed=False)
    assert read_out([*late[:5], None], states[:, :6], LAYER) is None
    one = [np.where(label == 1, -1, label) for label in late]
    assert read_out(one, states, LAYER) is None
