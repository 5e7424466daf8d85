"""`ctr experiment planted` at its smallest: every table is there and says what was found."""

import pytest

from experiments import planted, report
from experiments.progress import Progress
from experiments.settings import BadOption


def test_the_page_says_what_was_asked_and_found(tmp_path):
    result = planted.run(planted.Config(seeds=1, sequences=2, trained=0), Progress())
    found, controls, reader = sections = planted.sections(result)
    report.write(tmp_path, "planted", sections, {})
    assert (tmp_path / "report.html").stat().st_size > 5000
    rows = [dict(zip(found.tables[0].columns, row, strict=True)) for row in found.tables[0].rows]
    assert {row["truth"] for row in rows} == set(result.tallies)
    assert len(rows) > 20
    for row in rows:
        asked, there = row["found"].split(" of ")
        assert (asked, row["false"]) == (there, "0")
        assert row["models without a miss or a false one"].startswith("1 of 1 [21%, 100%]")
    heads = {row[0]: row[2:6] for row in controls.tables[0].rows}
    assert heads["local attention"][0] != "0 [0, 0]" == heads["local attention"][3]
    assert [row[0] for row in controls.tables[1].rows] == list(heads)
    assert reader.tables[0].rows[0][0] == "remove the tags"


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"sequences": 1}, {"trained": -1}, {"steps": 50}])
def test_a_run_that_looks_at_nothing_is_refused(wrong):
    with pytest.raises(BadOption, match=f"--{next(iter(wrong))}"):
        planted.run(planted.Config(**wrong), Progress())
