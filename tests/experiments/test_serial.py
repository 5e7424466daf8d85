"""Results as JSON: exact numbers, no surprises."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import serial


@dataclass(frozen=True)
class Point:
    x: float
    where: Path


class Pair(NamedTuple):
    a: np.ndarray
    b: dict


def test_every_kind_has_its_plain_form():
    pair = Pair(np.array([[1, 2], [3, 4]]), {3: np.float32(0.5)})
    assert serial.plain(pair) == {"a": [[1, 2], [3, 4]], "b": {"3": 0.5}}
    assert serial.plain(Point(float("inf"), Path("a/b"))) == {
        "kind": "Point",
        "x": "inf",
        "where": "a/b",
    }


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_survive_to_the_last_bit(values):
    assert json.loads(serial.dumps(np.array(values))) == values


def test_a_type_without_a_plain_form_is_refused():
    with pytest.raises(TypeError, match="object"):
        serial.plain(object())
