"""MMLU's files: what is read, what is shown, what is refused."""

import gzip

import pytest

from experiments.fewshot import tasks
from experiments.settings import BadOption

HEADER = "question,choice0,choice1,choice2,choice3,answer\n"


def write(folder, part, subject, rows, packed=False):
    text = HEADER + "".join(f'"q {i}, why?",None,b,c,d,{i % 4}\n' for i in range(rows))
    file = folder / "mmlu" / part / f"{subject}_{part}.csv{'.gz' if packed else ''}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return file


def test_items_are_of_the_test_and_examples_of_the_dev_part(tmp_path):
    write(tmp_path, "dev", "law", 20)
    write(tmp_path, "test", "law", 9, packed=True)
    for folder in (tmp_path, tmp_path / "tasks"):  # inside the folder, or beside it
        found = tasks.task("mmlu", folder, limit=9, seed=3)
        assert len(found.items) == 9
        assert len(found.examples) == tasks.EXAMPLES
        assert {item.context.split(",")[0] for item in found.items} == {f"q {i}" for i in range(9)}
    item = found.items[0]
    assert item.context.endswith("\nA. None\nB. b\nC. c\nD. d\nAnswer:")
    assert item.choices == (" A", " B", " C", " D")
    assert item.gold == int(item.context[2]) % 4


def test_what_is_not_mmlu_is_refused(tmp_path):
    with pytest.raises(BadOption, match="mmlu is read from a folder"):
        tasks.task("mmlu")
    with pytest.raises(BadOption, match="has no"):
        tasks.task("mmlu", tmp_path)
    write(tmp_path, "dev", "law", 20)
    file = write(tmp_path, "test", "law", 3)
    with pytest.raises(BadOption, match="mmlu has 3 items"):
        tasks.task("mmlu", tmp_path, limit=4)
    for text in ("question,a\n1,2\n", HEADER + "q,a,b,c,d,4\n", HEADER + "q,a,b,c,d\n", "\x00"):
        file.write_text(text)
        with pytest.raises(BadOption, match=r"law_test\.csv: not a table"):
            tasks.task("mmlu", tmp_path, limit=1)


@pytest.mark.data
def test_the_real_files(data):
    found = tasks.task("mmlu", data / "tasks", limit=14_042)
    assert len(found.items) == 14_042
    assert all(len(item.choices) == 4 for item in found.items)
