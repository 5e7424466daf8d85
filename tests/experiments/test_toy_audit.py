"""The page of the float audit: every format is on it, and no sentence says NaN."""

from experiments import toy_audit
from experiments.progress import Progress


def test_the_page_has_a_row_for_every_format_softmax_and_d():
    result = toy_audit.run(toy_audit.Config(T=7, t=3, X=1.0, d=300.0, cases=3), Progress())
    (section,) = toy_audit.sections(result)
    (table,) = section.tables
    assert len(table.rows) == 12
    assert {row[2] for row in table.rows} == {"bfloat16", "float32", "float64"}
    assert {row[0] for row in table.rows} == {"1", "300"}
    assert "nan" not in str(table.rows) + str(section.text)
    naive = [row for row in table.rows if row[1] == "naive" and row[2] != "bfloat16"]
    assert all(float(row[5]) >= float(row[6]) for row in naive)
    assert [picture.name for picture in section.pictures] == ["audit-d1", "audit-d300"]
