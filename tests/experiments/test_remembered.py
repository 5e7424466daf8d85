"""What was computed once is read again, and nothing else is."""

import numpy as np
import pytest

from experiments.remembered import Found, remembered
from experiments.settings import BadOption


def counting():
    calls = []

    def compute():
        calls.append(1)
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        return Found({"nll": array.T}, {"kept": 3, "name": "Δ"})

    return compute, calls


def test_the_second_time_is_read_and_another_key_is_computed(tmp_path):
    compute, calls = counting()
    key = {"sparsity": 0.5, "sizes": (1, 2)}
    first = remembered(tmp_path, key, compute)
    second = remembered(tmp_path, key, compute)
    assert len(calls) == 1
    assert second.facts == first.facts == {"kept": 3, "name": "Δ"}
    np.testing.assert_array_equal(second.arrays["nll"], [[0, 3], [1, 4], [2, 5]])
    remembered(tmp_path, key | {"sparsity": 0.6}, compute)
    assert len(calls) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_no_number_comes_back_as_what_it_was(tmp_path):
    facts = {"error": np.float64("nan"), "all": [float("inf")], "note": "nan"}
    for _ in range(2):
        found = remembered(tmp_path, {"a": 1}, lambda: Found({}, facts)).facts
        assert np.isnan(found["error"])
        assert f"{found['error']:.3f}" == "nan"
        assert found["all"] == [float("inf")]
        assert found["note"] == "nan"


def test_work_that_fails_leaves_nothing(tmp_path):
    def fails():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remembered(tmp_path, {"a": 1}, fails)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:9] + b"x" + b[10:]]
)
def test_a_damaged_file_is_refused_in_a_line(tmp_path, damage):
    compute, _ = counting()
    remembered(tmp_path, {"a": 1}, compute)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BadOption, match="delete it"):
        remembered(tmp_path, {"a": 1}, compute)


def test_a_file_of_another_key_is_refused(tmp_path):
    compute, _ = counting()
    remembered(tmp_path, {"a": 1}, compute)
    (one,) = tmp_path.iterdir()
    remembered(tmp_path, {"a": 2}, compute)
    (two,) = set(tmp_path.iterdir()) - {one}
    two.write_bytes(one.read_bytes())
    with pytest.raises(BadOption, match="another run"):
        remembered(tmp_path, {"a": 2}, compute)
