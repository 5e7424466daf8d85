"""Distances of planted maps, and what one text's thresholds cost another."""

import numpy as np
import pytest

from experiments.parts.r_sparse import stable, stable_page
from experiments.parts.r_sparse.thresholds import Served, units

NAMES = ["layers.0.mlp.up", "layers.3.mlp.up", "layers.6.mlp.up", "layers.0.attn.q"]


def shares(*cells):
    found = np.array(cells, dtype=float).reshape(2, 2)
    return found / found.sum()


def test_distance_is_0_for_equal_maps_and_1_for_disjoint_ones():
    a, b = shares(1, 0, 0, 0), shares(0, 0, 1, 1)
    assert stable.apart(a, a) == 0
    assert stable.apart(a, b) == 1
    assert stable.apart(shares(1, 1, 0, 0), b) == 1
    assert stable.apart(shares(1, 0, 1, 0), a) == pytest.approx(0.5)


def test_the_next_block_has_the_same_role_and_the_last_is_beside_the_first():
    assert stable.following(NAMES) == {
        NAMES[0]: NAMES[1],
        NAMES[1]: NAMES[2],
        NAMES[2]: NAMES[0],
        NAMES[3]: NAMES[3],
    }


def test_distances_are_of_pairs_of_domains_and_of_blocks():
    a, b, c = shares(1, 0, 0, 0), shares(1, 1, 0, 0), shares(0, 0, 0, 1)
    up, other = NAMES[0], NAMES[1]
    maps = {
        "x": {up: np.stack([a, b, a, a]), other: np.stack([c, c, c, c])},
        "y": {up: np.stack([b, b, b, b]), other: np.stack([c, c, c, c])},
    }
    found = stable.distances(maps)
    assert found["samples, x"].tolist() == [0.25, 0]
    assert found["samples, y"].tolist() == [0, 0]
    assert found["domain, y"].tolist() == [0.25, 0, 0.25, 0.25]
    assert found["blocks, x"].tolist() == [1, 1, 1, 1]
    assert found["samples less blocks, x"].tolist() == [-0.75, -1]
    assert found["domain less blocks, y"].tolist() == [-0.75, -1, -0.75, -0.75]
    assert "domain, x" not in found
    table = stable_page.distances(found)
    assert len(table.rows) == 5
    assert stable_page.picture(found).name == "stable"


def test_a_tenth_of_the_cost_is_taken_off():
    one = Served(np.array([1.0, 2.0]), np.array([2.0, 2.5]), np.array([2.1, 3.0]), 0.5, 0.6)
    found = units({"code": one})
    np.testing.assert_allclose(found["first's above a tenth, code"], [0.0, 0.45], atol=1e-12)
    rows = stable_page.served("x", {"code": one}).rows
    assert rows[0][-2:] == ("50.00%", "60.00%")
