"""Findings on planted losses: who is better by how much, and what follows from it."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.decoding.activation_measure import Seen
from experiments.papers import r_sparse_figure_5, r_sparse_table_2, r_sparse_table_4
from experiments.parts.intervened import DENSE, Variant
from experiments.parts.r_sparse.sparse_found import Losses, beside, lines, over_sparsities, table

NOISE = np.array([0.0, 0.02, -0.01, 0.01])
OWN, OTHER = Variant("r-sparse", 0.5), Variant("cats", 0.5)


def seen(above: float) -> Seen:
    return Seen(3.0 + above + NOISE * above, 0.5, 0.49)


def losses(**above: float) -> Losses:
    """Of variants by name and percent, `r_sparse_50=0.3`."""
    found = {DENSE: Seen(3.0 + 0 * NOISE, 1.0, 1.0)}
    for name, amount in above.items():
        method, _, percent = name.rpartition("_")
        found[Variant(method.replace("_", "-"), int(percent) / 100)] = seen(amount)
    return Losses(found, {}, {})


@pytest.mark.parametrize(("other", "verdict"), [(0.6, "shown"), (0.1, "contradicted")])
def test_better_is_a_lower_loss(other, verdict):
    (finding,) = beside("c", losses(r_sparse_50=0.3, cats_50=other), OWN, [OTHER])
    assert finding.verdict == verdict
    assert finding.effect is not None
    assert finding.effect.mean == pytest.approx((other - 0.3) * (1 + NOISE.mean()))
    assert "reads 49.0%" in finding.control


@pytest.mark.parametrize(("read", "warned"), [(0.5, True), (0.492, False), (0.4, False)])
def test_who_reads_more_is_told(read, warned):
    found = losses(r_sparse_50=0.3, cats_50=0.2)
    found.seen[OTHER] = found.seen[OTHER]._replace(read=read)
    (finding,) = beside("c", found, OWN, [OTHER])
    assert ("unequal" in finding.control) == warned


def test_answers_are_paired_by_question():
    right = {OWN: np.array([1, 1, 1, 0] * 8) > 0, OTHER: np.array([1, 0, 0, 0] * 8) > 0}
    found = losses(r_sparse_50=0.3, cats_50=0.3)._replace(right=right)
    first, second = beside("c", found, OWN, [OTHER, Variant("griffin", 0.5)])
    assert first.over == "windows"
    assert second.effect is not None
    assert second.effect.mean == 0.5
    assert (second.verdict, second.effect.n, second.over) == ("shown", 32, "questions")
    assert found.units["r-sparse 50%, right"].sum() == 24


def test_tables_and_lines_have_every_variant():
    found = losses(r_sparse_30=0.1, r_sparse_50=0.4, cats_50=0.6)
    rows = {row[0]: row for row in table(found).rows}
    assert rows["cats 50%"][3].startswith("+0.2")
    assert rows["dense"][2:5] == ("–", "–", "–")
    points = lines(found)
    assert [point[0] for point in points["r-sparse"]] == [0.3, 0.5]
    assert "dense" not in points
    canvas = over_sparsities(points, "p", "c").figure
    assert isinstance(canvas, Figure)
    labels = canvas.axes[0].get_legend_handles_labels()[1]
    assert set(labels) == {"r-sparse", "cats"}


def test_figure_5_asks_about_rivals_and_the_dense_model():
    config = r_sparse_figure_5.Config(sparsities=(0.3, 0.6))
    found = losses(r_sparse_30=0.05, griffin_30=0.4, r_sparse_60=0.9, griffin_60=0.5)
    says = {f.case: f.verdict for f in r_sparse_figure_5._findings(config, found)}
    assert says == {
        "r-sparse 30% against griffin 30%": "shown",
        "r-sparse 30%": "shown",
        "r-sparse 60% against griffin 60%": "contradicted",
    }


@pytest.mark.parametrize(("extra", "verdict"), [(0.0, "shown"), (0.2, "contradicted")])
def test_table_2_asks_what_int4_costs_beyond_its_own(extra, verdict):
    found = losses(r_sparse_50=0.3)
    int4 = r_sparse_table_2._int4
    found.seen[int4(DENSE)] = seen(0.1)
    both = found.seen[OWN].nll + found.seen[int4(DENSE)].nll - found.seen[DENSE].nll
    found.seen[int4(OWN)] = Seen(both + extra, 0.5, 0.5)
    (finding,) = r_sparse_table_2._findings(OWN, found)
    assert finding.verdict == verdict
    assert finding.effect is not None
    assert finding.effect.mean == pytest.approx(extra, abs=1e-12)


def test_table_4_says_whether_gains_grow():
    config = r_sparse_table_4.Config(sparsities=(0.4, 0.6))
    uniform = {"r_sparse_40": 0.2, "r_sparse_60": 1.0, "teal_40": 0.2, "teal_60": 0.9}
    found = losses(**uniform, knapsack_40=0.15, knapsack_60=0.5, evolution_60=1.2)
    says = {(f.claim, f.case): f.verdict for f in r_sparse_table_4._findings(config, found)}
    assert says == {
        ("r-sparse/table-4/searched", "knapsack 40% against r-sparse 40%"): "shown",
        ("r-sparse/table-4/searched", "knapsack 60% against r-sparse 60%"): "shown",
        ("r-sparse/table-4/grows", "knapsack, 60% against 40%"): "shown",
        ("r-sparse/table-4/searched", "evolution 60% against r-sparse 60%"): "contradicted",
    }
