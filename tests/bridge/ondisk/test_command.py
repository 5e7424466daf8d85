"""`ctr compress MODEL OUT --on-disk` answers and writes what the same line does in memory."""

from pathlib import Path

import pytest

from experiments.compress import Config, run
from experiments.progress import Progress
from experiments.saving import Form, Target
from experiments.settings import BadOption, Reading, Sizes

SIZES = Sizes(calibration=6, windows=2, context=64, sequences=2, seq=64)


def config(
    folder: Path, out: Path | None, on_disk: bool, form: Form, method: str = "wanda"
) -> Config:
    text = out.with_name("text.txt") if out else None
    if text is not None:
        text.write_text(" ".join(f"w{n * n % 95 + 2}" for n in range(3000)))
    reading = Reading(str(folder), text=text, on_disk=on_disk)
    return Config(reading, method, sizes=SIZES, target=Target(into=out, form=form))


# Those of whole components are fitted to the model's sinks before: on disk too.
CASES: list[tuple[str, Form]] = [
    ("wanda", "dense"), ("wanda", "packed"), ("a3", "dense"), ("protected", "base+lora"),
    ("protected-wanda", "packed"), ("sink-heads", "packed"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "form"), CASES)
def test_on_disk_as_in_memory(method, form, folders, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.roster.EPSILON", 0.05)  # random weights: of some heads
    folder = folders("llama")
    disk = run(config(folder, tmp_path / "disk", True, form, method), Progress())
    memory = run(config(folder, tmp_path / "memory", False, form, method), Progress())
    for one, two in ((disk.dense, memory.dense), (disk.effect, memory.effect)):
        assert one._replace(kept=None) == two._replace(kept=None)  # of no sinks that is NaN
    assert disk.effect.nll.mean != 0
    assert disk.weights._replace(seconds=0) == memory.weights._replace(seconds=0)
    assert disk.stored == memory.stored
    files = [f.relative_to(tmp_path / "memory") for f in tmp_path.glob("memory/**/*.safetensors")]
    assert files
    for file in files:
        assert (tmp_path / "disk" / file).read_bytes() == (tmp_path / "memory" / file).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "memory", "text.txt"}


def test_without_a_place_for_operators_it_is_refused_before_the_work(folders):
    with pytest.raises(BadOption, match="--on-disk: say where to"):
        run(config(folders("llama"), None, True, "dense"), Progress())
