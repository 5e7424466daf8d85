"""A few seeds, trained once for all laws."""

from dataclasses import replace

import numpy as np
import pytest

from toy.diagnose import diagnose
from toy.train import Recipe, train
from toy.transformer import Weights


@pytest.fixture(scope="session")
def trained():
    return train(replace(Recipe(), seeds=3, steps=1200, checkpoints=12))


@pytest.fixture(scope="session")
def found(trained):
    which = diagnose(trained, sequences=512).found
    assert which.sum() >= 2
    return which


@pytest.fixture(scope="session")
def weights(trained, found):
    return Weights(*(np.asarray(field)[found] for field in trained.weights))
