"""The bench times what it says it times; threads are chosen by time."""

import pytest
import torch

from ctr_kernels.sparse_gemv import Rows, prepare, threads
from experiments import bench, bench_codes, bench_run
from experiments.progress import Progress
from experiments.settings import BadOption

SMALL = bench.Config(
    shapes=("70x50",), dtypes=("float32",), sparsities=(0.0, 0.5), rank=3, rounds=3, pool=1
)


def test_every_setting_has_a_ratio_a_control_and_an_interval(monkeypatch):
    monkeypatch.setattr(bench_run, "bandwidth", lambda: 1e9)
    monkeypatch.setattr(bench_run, "lost", lambda: 0.0)
    result = bench.run(SMALL, Progress())
    assert [(r.sparsity, r.backend) for r in result.rows] == [(0.0, "cpu"), (0.5, "cpu")]
    whole, half = result.rows
    assert whole.kept == 1
    assert half.kept == 0.5
    # 3 (25 + 70) numbers of factors on 25 x 70 of weights
    assert half.bytes_added == pytest.approx(1 + 3 * (25 + 70) / (25 * 70))
    assert all(
        r.faster.low <= r.faster.mean <= r.faster.high and r.faster.n == 3 for r in result.rows
    )
    (section,) = bench.sections(result)
    assert "1.0 GB/s on 1" in section.text[1]
    assert len(section.tables[0].rows) == 2


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("shapes", ("70",), "OUTPUTSxINPUTS"),
        ("shapes", ("1x1",), "1024 to 2"),
        ("shapes", ("1000000x1000000",), "1024 to 2"),
        ("seed", -1, "seed"),
        ("codes", ("int8", "int8"), "each once"),
        ("batch", 9, "from 1 to 8"),
        ("sparsities", (1.0,), "sparsities"),
        ("device", "cuda", "no GPU"),
    ],
)
def test_what_cannot_be_timed_is_one_line(field, value, says):
    with pytest.raises(BadOption, match=says):
        bench.run(bench.Config(**{field: value}), Progress())


def test_threads_are_chosen_by_the_median_ratio(monkeypatch):
    rows = Rows(torch.randn(20, 30), 30)
    products = [prepare(rows, torch.zeros(20), threads=1)]
    seconds = {1: 2.0, 2: 1.0}
    monkeypatch.setattr(threads, "_seconds", lambda ps: seconds[ps[0].threads])
    assert threads.choose(products, 2) == 2
    assert threads.choose(products, 1) == 1
    seconds[2] = 1.9  # faster, by too little
    assert threads.choose(products, 2) == 1
    assert threads.choose([], 2) == 1


def test_codes_are_timed_beside_the_products_that_they_replace(monkeypatch):
    monkeypatch.setattr(bench_run, "bandwidth", lambda: 1e9)
    monkeypatch.setattr(bench_run, "lost", lambda: 0.0)
    given = {"shapes": ("128x256",), "codes": ("int8", "int4"), "sparsities": (0.5,)}
    result = bench.run(bench.Config(**{**vars(SMALL), **given}), Progress())
    # Two of 256 are tied: bfloat16.
    half = pytest.approx(0.5, abs=0.01)
    assert [(r.codes, r.kept, r.backend) for r in result.codes] == [
        ("int8", half, "cpu"),
        ("int4", half, "cpu"),
    ]
    assert all(r.int4.low <= r.int4.mean <= r.int4.high for r in result.codes)
    assert "Sparse codes" in bench.sections(result)[1].title
    with pytest.raises(BadOption, match="multiples"):
        bench.run(bench.Config(**{**vars(SMALL), "codes": ("int8",)}), Progress())


@pytest.mark.parametrize("code", ["int8", "int4"])
def test_the_control_computes_what_the_rows_say(code, generator):
    weight, x = torch.randn(128, 256, generator=generator), torch.ones(1, 256).bfloat16()
    ways = {"int8": bench_codes._torch_int8, "int4": bench_codes._torch_int4}
    control = next(ways[code](SMALL, weight, x))()
    wanted = x.double() @ bench_codes.PACKS[code](weight).matrix(torch.float64)
    assert (control - wanted).norm() < 0.02 * wanted.norm()
