"""The page of `ctr toy laws`: every section from small results, and options that cannot be."""

import numpy as np
import pytest

from experiments import serial, toy_laws
from experiments.provenance import Inputs
from experiments.settings import BadOption
from toy.laws.compressed import constructed, study
from toy.laws.frontier import frontier
from toy.laws.growth import growth
from toy.laws.lengths import lengths
from toy.laws.ranks import ranks
from toy.laws.typical import typical


def test_every_law_becomes_a_section(trained, found, weights, tmp_path):
    grown = growth(trained, found, np.full(len(found), 0.01))
    result = toy_laws.Result(
        config=toy_laws.Config(seeds=len(found)),
        inputs=Inputs(dtype="float64"),
        frontiers=[
            frontier(tail, np.array([9.0, 14.0, 20.0]), sequences=200) for tail in toy_laws.SCALES
        ],
        typical=[typical("uniform", np.array([14.0, 20.0]), sequences=40)],
        growths=[grown, grown._replace(counted=np.zeros_like(found))],
        recipe=trained.recipe,
        history=trained.history,
        found=int(found.sum()),
        ranks=ranks(trained, found, sequences=1024),
        lengths=lengths(weights, (8, 40), sequences=600),
        trained=study(weights, tail="gaussian", draws=1, sequences=300),
        theorem=study(constructed(2), tail="uniform", draws=1, sequences=100),
    )
    sections = toy_laws.sections(result)
    assert len(sections) == 6
    for section in sections:
        for table in section.tables:
            assert all(len(row) == len(table.columns) for row in table.rows)
            assert all("nan" not in cell for row in table.rows for cell in row)
        for picture in section.pictures:
            picture.figure.savefig(tmp_path / f"{picture.name}.png")
    names = [picture.name for section in sections for picture in section.pictures]
    assert len(set(names)) == 6
    assert '"kind": "Result"' in serial.dumps(result)


@pytest.mark.parametrize(
    ("option", "value"),
    [("sequences", 99), ("seeds", 0), ("steps", 4001), ("steps", 0), ("seed", -1)],
)
def test_an_option_that_cannot_be_is_named(option, value):
    with pytest.raises(BadOption, match=f"--{option} {value}"):
        toy_laws.check(toy_laws.Config(**{option: value}))
