"""A report's tables: words read from the left, numbers line up on the right."""

from experiments import report


def test_words_are_set_left_and_numbers_right(tmp_path):
    rows = [
        ("primary", "a first token with more than epsilon", "226 [225, 227]", "blocks 3 to 5"),
        ("later", "a later token that 16 queries can see", "241 [223, 261]", "–"),
    ]
    table = report.Table(("kind", "definition", "a prompt", "where"), rows)
    assert table.worded() == [False, True, False, False]
    report.write(tmp_path, "title", [report.Section("part", tables=[table])], {})
    page = (tmp_path / "report.html").read_text()
    assert page.count('<td class="words">') == 2
    assert '<th class="words">definition' in page
    assert "<td>241 [223, 261]</td>" in page


def test_a_table_without_rows_has_no_words():
    assert report.Table(("kind", "n"), []).worded() == []
