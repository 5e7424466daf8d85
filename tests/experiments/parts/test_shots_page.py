"""Gains from examples as findings, tables and a picture, from made-up answers."""

import numpy as np
from matplotlib.figure import Figure

from experiments.fewshot.tasks import task
from experiments.findings import BELOW_ZERO
from experiments.parts import shots_page
from experiments.parts.answer import Answer
from experiments.parts.shots import Shots, adjusted, wrong
from experiments.provenance import Inputs


def shots(none, some, n=40):
    at = np.arange(n)
    return Shots(at < none * n, at < some * n)


def by():
    dense = {"labels": shots(0.5, 0.9), "induction": shots(0.6, 0.6)}
    return {
        "dense": dense,
        "misled": {"labels": shots(0.5, 0.5)},
        "wanda": {"labels": shots(0.5, 0.6)},
        "oats": {"labels": shots(0.5, 0.8)},
    }


def test_findings_say_what_is_beside_what():
    p = adjusted(by()["dense"])
    found = {(f.claim, f.case): f for f in shots_page.findings(by(), p, 5)}
    effects = {
        f"{claim.split('/')[-1]} {case}": f.effect.mean
        for (claim, case), f in found.items()
        if f.effect
    }
    assert {name: round(value, 9) for name, value in effects.items()} == {
        "gain labels": 0.4,
        "gain induction": 0.0,
        "answers misled, labels": 0.4,
        "sparse wanda, labels": -0.3,
        "oats oats, labels": 0.2,
    }
    assert found["ours/few-shot/sparse", "wanda, labels"].claimed == BELOW_ZERO
    assert found["ours/few-shot/sparse", "wanda, labels"].verdict == "shown"


def test_the_picture_and_the_tables_have_every_model():
    tasks = [task(name, None, 40) for name in ("labels", "induction")]
    tables = shots_page.tables(by(), adjusted(by()["dense"]), tasks)
    assert [len(table.rows) for table in tables] == [2, 3]
    result = Answer(None, Inputs(), [], tables, shots_page.units(by()))
    (picture,) = shots_page.pictures(result)
    assert isinstance(picture.figure, Figure)
    (axis,) = picture.figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "dense", "wrong answers", "wanda", "oats",
    ]  # fmt: skip
    only_dense = Answer(None, Inputs(), [], tables, shots_page.units({"dense": by()["dense"]}))
    assert shots_page.pictures(only_dense) == []


def test_wrong_examples_have_a_wrong_answer_each():
    made = task("segment-copy", None, 3)
    other = wrong(made)
    assert other.items == made.items
    for one, two in zip(made.examples, other.examples, strict=True):
        assert one.gold != two.gold
        assert one[:2] == two[:2]
