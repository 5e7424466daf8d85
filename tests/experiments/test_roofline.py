"""`ctr experiment roofline`: its arithmetic by hand, and its page."""

import pytest

from experiments import roofline, roofline_model
from experiments.progress import Progress
from experiments.settings import BadOption
from mech.errors import BadInput


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(
        roofline_model, "instructions", lambda capability, names: {n: 40.0 for n in names}
    )


def test_memory_and_instructions_by_hand(counted):
    """W of 4096 x 4096 in float16, nothing left out: 32 MiB and what the cut adds."""
    rows, factors = roofline_model._rows("float16", 4096, 4096)
    work = roofline_model._work(rows, factors, rank=0, kept=1.0, processors=108)
    assert work.memory == 4096 * 4096 * 2 + 4096 * 6
    # 16 blocks of 256 outputs: 27 shares of 108 programs a block, of 160 channels, are 26.
    assert work.cache == 26 * 4096 * 8 + 15 * 4096 * 6
    assert work.segments == 16 * 4096
    low = roofline_model._work(rows, factors, rank=96, kept=0.5, processors=108)
    assert low.memory == 4096 * 4096 + 4096 * 6 + (2048 + 4096) * 96 * 2
    assert low.segments == 16 * 4096 + 4096 / 2 + 16 * 96
    gpu = roofline_model.GPUS["A100"]
    assert roofline_model._issued(work, gpu, 40) == pytest.approx(16 * 4096 * 40 / 609.12e3)
    moved = (work.memory + work.cache / 3) / (0.9 * 2.039e6)
    assert roofline_model._moved(work, gpu, 0.9) == pytest.approx(moved)


def test_the_page_says_that_it_is_a_model_and_has_its_control(counted):
    config = roofline.Config(gpus=("A6000", "H100"), shapes=("4096x4096",), dtypes=("float16",))
    result = roofline.run(config, Progress())
    assert len(result.rows) == 6
    for row in result.rows:
        assert row.low <= row.ratio <= row.high
        assert row.ratio < 1 / (1 - row.sparsity)
    (section,) = roofline.sections(result)
    assert section.text[0].startswith("This is a model: nothing was run on a GPU")
    assert "(the control)" in section.text[0]


def test_the_compiler_counts_for_a_gpu_that_is_not_here():
    (count,) = roofline_model.instructions(80, ("float16",)).values()
    assert 20 < count < 100


def test_no_compiler_is_one_line(monkeypatch):
    monkeypatch.setattr(roofline_model.sys, "executable", "false")
    with pytest.raises(BadInput, match="install triton"):
        roofline_model.instructions(80, ("float16",))


@pytest.mark.parametrize("wrong", [{"gpus": ()}, {"sparsities": (1.0,)}, {"alpha": -0.1}])
def test_bad_options_are_refused(wrong):
    with pytest.raises(BadOption, match=f"--{next(iter(wrong))}"):
        roofline.run(roofline.Config(**wrong), Progress())
