"""`ctr compress MODEL OUT --on-disk` answers and writes what the same line does in memory."""

from pathlib import Path

import pytest

from experiments.compress import Config, run
from experiments.progress import Progress
from experiments.saving import Form, Target
from experiments.settings import BadOption, Reading, Sizes

SIZES = Sizes(calibration=6, windows=2, context=32, sequences=2, seq=64)


def config(folder: Path, out: Path | None, on_disk: bool, form: Form) -> Config:
    text = out.with_name("text.txt") if out else None
    if text is not None:
        text.write_text(" ".join(f"w{n * n % 95 + 2}" for n in range(3000)))
    reading = Reading(str(folder), text=text, on_disk=on_disk)
    return Config(reading, "wanda", sizes=SIZES, target=Target(into=out, form=form))


@pytest.mark.parametrize("form", ["dense", "packed"])
def test_on_disk_as_in_memory(form, folders, tmp_path):
    folder = folders("llama")
    disk = run(config(folder, tmp_path / "disk", True, form), Progress())
    memory = run(config(folder, tmp_path / "memory", False, form), Progress())
    for one, two in ((disk.dense, memory.dense), (disk.effect, memory.effect)):
        assert one._replace(kept=None) == two._replace(kept=None)  # of no sinks that is NaN
    assert disk.effect.nll.mean != 0
    assert disk.weights._replace(seconds=0) == memory.weights._replace(seconds=0)
    assert disk.stored == memory.stored
    for file in (tmp_path / "memory").glob("*.safetensors"):
        assert (tmp_path / "disk" / file.name).read_bytes() == file.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "memory", "text.txt"}


def test_without_a_place_for_operators_it_is_refused_before_the_work(folders):
    with pytest.raises(BadOption, match="--on-disk: say where to"):
        run(config(folders("llama"), None, True, "dense"), Progress())
