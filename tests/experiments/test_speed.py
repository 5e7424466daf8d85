"""Decoding timed: every way reads the same tokens, and the sentence says what the interval does."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from tiny import random_text, tiny_llama

from experiments.decoding import speed, speed_run, speed_timing
from experiments.decoding.speed_models import timed_model
from experiments.intervals import Interval
from experiments.progress import Progress
from experiments.settings import BadOption, Reading
from mech.errors import BadInput


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    tiny_llama(folder / "model")
    random_text(folder / "text.txt", 0)
    reading = Reading(str(folder / "model"), folder / "text.txt")
    config = speed.Config(
        reading, prompt=7, tokens=6, windows=2, calibration=3, rows=("weights", "int8"),
        quantised=("int8", "int4"), dtypes=("float32",),
    )  # fmt: skip
    return speed.run(config, Progress())


def test_all_ways_predict_the_same_tokens(result):
    ways = ["dense", "dense, fastest form", "dense, torch's int8", "dense, torch's int4"]
    ways += ["sparse", "sparse, int8 rows"]
    assert [row.way for row in result.rows] == ways
    for row in result.rows:
        assert row.over_dense.n == 12
        assert np.isfinite(row.ppl)
        assert 0 < row.outside < 1
    dense, fastest, torch8, _, sparse, int8 = (row for row in result.rows if row.dtype == "float32")
    assert dense.over_dense == Interval(1, 1, 1, 12)
    # The same model by other products, and another model.
    assert abs(fastest.nll.mean) < 1e-5 < abs(sparse.nll.mean)
    assert 0 < abs(torch8.nll.mean) < abs(sparse.nll.mean)
    assert fastest.read == dense.read > sparse.read > int8.read


def test_a_recipe_that_reads_all_predicts_what_dense_does(tmp_path):
    tiny_llama(tmp_path / "model")
    random_text(tmp_path / "text.txt", 0)
    config = speed.Config(
        Reading(str(tmp_path / "model"), tmp_path / "text.txt"),
        sparsity=1e-9, alpha=1.0, prompt=7, tokens=4, windows=2, calibration=2,
        dtypes=("float32",), quantised=(),
    )  # fmt: skip
    assert abs(speed.run(config, Progress()).rows[-1].nll.mean) < 1e-5


def test_sections(result):
    (section,) = speed.sections(result)
    assert len(section.text) == 2 + 1 + 1
    assert len(section.tables[0].rows) == 6


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(1.1, 1.3, "faster than"), (0.9, 1.1, "no faster than"), (0.5, 0.9, "slower than")],
)
def test_the_sentence_follows_the_interval(result, low, high, word):
    row = result.rows[4]._replace(over_fastest=Interval((low + high) / 2, low, high, 12))
    changed = dataclasses.replace(result, rows=[row])
    assert f": {word} the fastest" in speed.sections(changed)[0].text[0]


def test_median_is_not_moved_by_one_pair():
    values = np.r_[np.full(30, 2.0), 1e6]
    assert speed_timing.median(values) == Interval(2.0, 2.0, 2.0, 31)


def test_ways_take_turns():
    seen: list[str] = []
    ways = {name: (lambda name=name: seen.append(name)) for name in "ab"}
    took = speed_timing.in_turn(ways, 20)
    assert [len(t) for t in took.values()] == [20, 20]
    assert all(set(seen[2 * i : 2 * i + 2]) == {"a", "b"} for i in range(20))
    assert seen[::2].count("a") not in (0, 20)


def test_options():
    with pytest.raises(BadOption, match=r"--sparsity 1\.0: give a number above 0 and below 1"):
        speed.check(speed.Config(sparsity=1.0))
    with pytest.raises(BadOption, match="this loop runs on a CPU"):
        speed.check(speed.Config(Reading(device="cuda")))
    assert torch.get_num_threads() == 1


def test_windows_longer_than_the_model_are_refused(tmp_path):
    tiny_llama(tmp_path / "model")
    random_text(tmp_path / "a.txt", 0)
    reading = Reading(str(tmp_path / "model"), tmp_path / "a.txt")
    with pytest.raises(BadOption, match="windows of 81 tokens, and the model was made for 80"):
        timed_model(reading, torch.float32, 2, 2, 81)
    assert timed_model(reading, torch.float32, 2, 2, 80).ids.shape == (2, 80)


def test_without_compiled_products_there_is_nothing_to_time(tmp_path, monkeypatch):
    tiny_llama(tmp_path / "model")
    random_text(tmp_path / "a.txt", 0)
    reading = Reading(str(tmp_path / "model"), tmp_path / "a.txt")
    monkeypatch.setitem(sys.modules, "ctr_kernels.sparse_gemv.cpu_float", None)
    config = speed.Config(reading, alpha=1.0, dtypes=("float32",), prompt=8, tokens=4, windows=2)
    with pytest.raises(BadInput, match="nothing to time: cpu_float cannot be imported"):
        speed.run(config, Progress())
    monkeypatch.delattr("experiments.decoding.speed_run")
    monkeypatch.setitem(sys.modules, speed_run.__name__, None)
    with pytest.raises(BadOption, match="compiled products cannot be loaded"):
        speed.run(config, Progress())
