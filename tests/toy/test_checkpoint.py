"""A saved training is the training: read back to the last bit, continued to the same bytes."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from toy.checkpoint import load_training, save_training
from toy.errors import Refused
from toy.optimizers import OPTIMIZERS
from toy.recipe import Recipe
from toy.train import begin, proceed

SMALL = Recipe(steps=6, checkpoints=3, seeds=3, batch=5, shortest=3, longest=7)
RULES = (*OPTIMIZERS, "adamw")


def assert_same(ours, theirs):
    assert ours.recipe == theirs.recipe
    assert ours.done == theirs.done
    assert jax.tree.structure(ours.state) == jax.tree.structure(theirs.state)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        if isinstance(b, Recipe):
            continue
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rule", RULES)
def test_read_back_to_the_last_bit(rule, tmp_path):
    begun = begin(replace(SMALL, optimizer=rule, seed=7, learning_rate=0.1 + 0.2))
    save_training(tmp_path / "a", begun)
    save_training(tmp_path / "b", begun)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
    assert_same(load_training(tmp_path / "a"), begun)


def test_continued_to_the_same_bytes(tmp_path):
    """Through a file after every checkpoint, and without one; muon remembers the most."""
    never = through = begin(replace(SMALL, optimizer="muon"))
    for number in range(3):
        never = proceed(never)
        path = tmp_path / f"{number}"
        save_training(path, proceed(through))
        through = load_training(path)
        assert_same(through, never)
    assert never.history.step.tolist() == [2, 4, 6]
    assert np.ptp(never.history.s_tag) > 0


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "training"
    save_training(path, begin(SMALL))
    return path


def test_one_changed_byte_is_refused(file, tmp_path):
    """Anywhere: every 13th byte of the header and every 7th of the numbers."""
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    damaged = tmp_path / "damaged"
    for place in [*range(0, header, 13), *range(header, len(whole), 7)]:
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Refused, match="damaged"):
            load_training(damaged)


@pytest.mark.parametrize("kept", [0, 1, 8, 100, -1])
def test_a_part_is_refused(file, tmp_path, kept):
    (tmp_path / "part").write_bytes(file.read_bytes()[:kept])
    with pytest.raises(Refused, match="part is damaged"):
        load_training(tmp_path / "part")


def test_what_is_no_training_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3)}, tmp_path / "model")
    with pytest.raises(Refused, match="not a training of this version"):
        load_training(tmp_path / "model")
    with pytest.raises(Refused, match="no such file"):
        load_training(tmp_path / "nowhere")
