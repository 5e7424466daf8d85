"""Every kernel of Σ_q A[q, k] answers to the definition in float64, on every kind of mask."""

import math
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctr_kernels.op import Unsupported
from ctr_kernels.sink_mass import SinkMass, cpu, sink_mass
from ctr_kernels.sink_mass.arguments import check

BACKENDS = ("reference", *sink_mass.kernels)
U = 2.0**-24  # the unit roundoff of float32
HALF = {torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


class Case(NamedTuple):
    """Arguments of a call; `low` and `high` are functions of (position of the query, sequence)."""

    name: str
    heads: tuple[int, int] = (3, 1)
    length: tuple[int, int] = (67, 67)
    width: tuple[int, int] = (7, 7)
    batch: int = 1
    low: object = None
    high: object = None
    softcap: float | None = None
    sink: bool = False
    size: float = 1.0


CASES = [
    Case("causal"),
    Case("window", low=lambda q, _: q - 9),
    Case("chunk", low=lambda q, _: q // 20 * 20),
    Case("left padding", batch=2, low=lambda _, b: 11 + 31 * b, high=lambda q, b: q),
    Case("right padding", batch=2, high=lambda q, b: q if q < 67 - 40 * b else -1),
    Case("unequal, and a window", batch=3, low=lambda q, b: max(5 * b, q - 12)),
    Case("both directions", high=lambda q, b: 66),
    Case("beyond the keys", low=lambda q, b: q - 70, high=lambda q, b: q + 10),
    Case("nobody sees", high=lambda q, b: -1, sink=True),
    Case("some see nothing", high=lambda q, b: -1 if q % 3 else q, sink=True, batch=2),
    Case("soft cap", softcap=1.5, size=3.0),
    Case("learned sink", sink=True, heads=(4, 2)),
    Case("cap, sink, window", softcap=2.0, sink=True, low=lambda q, _: q - 9),
    Case("a head each", heads=(3, 3)),
    Case("nine heads", heads=(9, 3), length=(35, 35)),
    Case("one token", length=(1, 1)),
    Case("one query", length=(1, 65)),
    Case("fewer queries", length=(33, 70)),
    Case("more queries", length=(70, 33), sink=True),
    Case("huge logits", size=300.0),
    Case("huge logits under a cap", size=300.0, softcap=50.0),
    Case("wide keys", width=(24, 5)),
    Case("wide values", width=(5, 40)),
]


def arguments(case: Case, generator, dtype=torch.float32):
    """As transformers gives them: views of [batch, position, head, d]."""

    def states(heads, length, width):
        x = torch.randn(case.batch, length, heads, width, generator=generator) * case.size
        return x.to(dtype).transpose(1, 2)

    queries, keys = case.length
    places = [(b, q) for b in range(case.batch) for q in range(queries)]

    def edges(edge):
        if edge is None:
            return None
        return torch.tensor([int(edge(q, b)) for b, q in places]).view(case.batch, queries)

    kwargs = {
        "scaling": case.width[0] ** -0.5,
        "low": edges(case.low),
        "high": edges(case.high),
        "softcap": case.softcap,
        "sink": torch.randn(case.heads[0], generator=generator) if case.sink else None,
    }
    query = states(case.heads[0], queries, case.width[0])
    key, value = (states(case.heads[1], keys, width) for width in case.width)
    return (query, key, value), kwargs


def exactly(args, kwargs) -> SinkMass:
    sink = None if kwargs["sink"] is None else kwargs["sink"].double()
    return sink_mass.on("reference")(*(x.double() for x in args), **kwargs | {"sink": sink})


def agree(found: SinkMass, args, kwargs, half: float = 0.0) -> float:
    """Every entry within what rounding may do; the largest relative error of `received`.

    A logit is a sum of d products: off by δ = (d + 4)·u·scaling·Σ|q||k| at most, a cap adds 4u·c.
    Each weight exp(logit − lse) is then off by 2δ, and by u for each of the keys in its sum; the
    sums over queries add u for each query. Entries of the pattern are positive, so these are
    relative errors of received, and of z in units of the largest value. Half precision rounds the
    weights before they meet the values.
    """
    query, key, value = args
    truth = exactly(args, kwargs)
    groups = query.shape[1] // key.shape[1]
    sizes = query.abs().double() @ key.abs().double().repeat_interleave(groups, 1).mT
    largest = kwargs["scaling"] * sizes.max().item()
    logit = (query.shape[3] + 4) * U * largest + 4 * U * (kwargs["softcap"] or 0)
    relative = 2 * logit + (key.shape[2] + query.shape[2] + 20) * U
    tiny = 1e-34  # float32 ends at 1e-38, for each of the keys and queries
    assert_near(found.received, truth.received, relative * truth.received + tiny)
    assert_near(found.missing, truth.missing, relative * truth.missing + tiny)
    seen = truth.lse > -torch.inf
    assert torch.equal(found.lse == -torch.inf, ~seen)
    slack = logit + (key.shape[2] + 4) * U + U * truth.lse[seen].abs()
    assert_near(found.lse[seen], truth.lse[seen], slack)
    if found.z is not None and truth.z is not None:
        bound = (relative + half + key.shape[2] * U) * value.abs().max().double() + tiny
        assert_near(found.z, truth.z, bound.expand(truth.z.shape))
    error = (found.received.double() - truth.received).abs() / truth.received.clamp(min=tiny)
    return error.max().item()


def assert_near(found, truth, bound):
    assert found.dtype == torch.float32
    excess = (found.double() - truth).abs() - bound
    assert (excess <= 0).all(), f"beyond the bound by {excess.max():.3g}"


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """So that short texts have many of them."""
    monkeypatch.setattr(cpu, "ROWS", 12)
    monkeypatch.setattr(cpu, "COLUMNS", 16)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_is_the_definition(backend, case, generator):
    args, kwargs = arguments(case, generator)
    found = sink_mass.on(backend)(*args, **kwargs)
    agree(found, args, kwargs)
    # No query is lost: what it gave went to keys, or to the learned sink.
    sees = (found.lse > -torch.inf).sum(dim=2).double()
    mass = found.received.double().sum(dim=2) + found.missing.double()
    rounding = (sum(case.length) + 20) * U
    size = (
        2
        * (case.width[0] + 4)
        * U
        * (found.lse[found.lse > -torch.inf].abs().amax() if sees.any() else 0)
    )
    torch.testing.assert_close(mass, sees, rtol=float(rounding + size), atol=0)


def plainly(query, key, value, *, scaling, low, high, softcap, sink):
    """Restated without tensors, for one sequence and one head."""
    received, missing, lse, z = [0.0] * len(key), 0.0, [], []
    for q, row in enumerate(query):
        keys = [k for k in range(len(key)) if low[q] <= k <= high[q]]
        logits = [
            scaling * math.fsum(a * b for a, b in zip(row, key[k], strict=True)) for k in keys
        ]
        if softcap is not None:
            logits = [softcap * math.tanh(x / softcap) for x in logits]
        total = math.fsum(map(math.exp, logits)) + (math.exp(sink) if sink is not None else 0)
        lse.append(math.log(total) if keys else -math.inf)
        weights = [math.exp(x) / total for x in logits]
        for k, weight in zip(keys, weights, strict=True):
            received[k] += weight
        missing += math.exp(sink) / total if keys and sink is not None else 0
        columns = [[value[k][j] for k in keys] for j in range(len(value[0]))]
        z.append([math.fsum(w * v for w, v in zip(weights, c, strict=True)) for c in columns])
    return received, lse, missing, z


@st.composite
def problems(draw):
    queries, keys, groups = (
        draw(st.integers(1, 6)),
        draw(st.integers(1, 6)),
        draw(st.integers(1, 3)),
    )
    edges = st.lists(st.integers(-2, 7), min_size=queries, max_size=queries)
    return {
        "shape": (queries, keys, groups),
        "seed": draw(st.integers(0, 2**16)),
        "low": draw(edges),
        "high": draw(edges),
        "softcap": draw(st.sampled_from([None, 0.5, 30.0])),
        "sink": draw(st.sampled_from([None, -2.0, 3.0])),
    }


def follows_the_plain_definition(backend, problem):
    queries, keys, groups = problem["shape"]
    generator = torch.Generator().manual_seed(problem["seed"])
    query, key, value = (
        torch.randn(1, h, n, 3, generator=generator)
        for h, n in ((2 * groups, queries), (2, keys), (2, keys))
    )
    sink = problem["sink"]
    found = sink_mass.on(backend)(
        query,
        key,
        value,
        scaling=0.7,
        low=torch.tensor([problem["low"]]),
        high=torch.tensor([problem["high"]]),
        softcap=problem["softcap"],
        sink=None if sink is None else torch.full((2 * groups,), sink),
    )
    for h in range(2 * groups):
        kv = h // groups
        rest = {name: problem[name] for name in ("low", "high", "softcap", "sink")}
        truth = plainly(
            query[0, h].tolist(), key[0, kv].tolist(), value[0, kv].tolist(), scaling=0.7, **rest
        )
        assert found.z is not None
        got = found.received[0, h], found.lse[0, h], found.missing[0, h], found.z[0, h]
        for a, b in zip(got, truth, strict=True):
            # Logits are below 10 and sums have six terms: within a hundred roundings.
            torch.testing.assert_close(a, torch.tensor(b), rtol=100 * U, atol=100 * U)


SAME_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@SAME_FIXTURE
@given(problems())
def test_is_the_plain_definition(backend, problem):
    follows_the_plain_definition(backend, problem)


@settings(SAME_FIXTURE, max_examples=10)  # the interpreter is slow
@given(problems())
def test_triton_is_the_plain_definition(problem):
    follows_the_plain_definition("triton", problem)


@pytest.fixture
def bfloat16_products(monkeypatch):
    """Triton 3.7's interpreter multiplies the bits of bfloat16 as if they were integers."""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    dot = interpreter.InterpreterBuilder.create_dot

    def widened(x):
        if x.dtype.scalar.name != "bf16":
            return x
        bits = x.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), interpreter.tl.float32)

    monkeypatch.setattr(
        interpreter.InterpreterBuilder,
        "create_dot",
        lambda self, a, b, *rest: dot(self, widened(a), widened(b), *rest),
    )


@pytest.mark.usefixtures("bfloat16_products")
@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(backend, dtype, generator):
    args, kwargs = arguments(Case("half", batch=2, sink=True, softcap=9.0), generator, dtype)
    found = sink_mass.on(backend)(*args, **kwargs)
    agree(found, args, kwargs, half=HALF[dtype] if backend == "triton" else 0.0)


def test_whole_tiles_and_thousands_of_queries(generator, monkeypatch, measured):
    """At its own sizes: several tiles a row, several blocks, sums of 4,500 queries."""
    monkeypatch.undo()
    assert (cpu.ROWS, cpu.COLUMNS) == (192, 2048)
    args, kwargs = arguments(
        Case("long", length=(4500, 4500), width=(16, 16), sink=True), generator
    )
    error = agree(sink_mass.on("cpu")(*args, **kwargs), args, kwargs)
    assert error < 1e-5
    measured("sink_mass on a CPU, 4,500 tokens, relative error of received", error, "below 1e-5")


def test_the_exponential_is_good_to_its_last_bits(measured):
    """Rounded: the rest of x, the last step of the polynomial, its product and the sum with 1."""
    exponentials = pytest.importorskip("ctr_kernels.sink_mass.weigh")._exponentials
    x = np.linspace(-80, 0, 4001, dtype=np.float32)
    found = x.copy()
    exponentials(found, np.float32(0))
    error = np.abs(found / np.exp(x.astype(np.float64)) - 1).max() / U
    assert error < 4
    measured("sink_mass, its exponential", f"{error:.2f} u", "below 4 u")


@pytest.mark.parametrize("heads", [1, 2])
def test_the_column_sums_compile_under_the_poison_of_these_tests(heads):
    """A machine whose cache is empty compiles inside a test, where `np.empty` is another one."""
    numba = pytest.importorskip("numba")
    weigh = pytest.importorskip("ctr_kernels.sink_mass.weigh")
    sums = numba.njit(weigh.column_sums.py_func)
    received = np.zeros((heads, 9))[:, 2:5]  # of one head it is contiguous, of two it is not
    tile = np.arange(30 * heads, dtype=np.float32).reshape(10 * heads, 3)
    sums(tile, np.ones(10 * heads, np.float32), received, np.empty(7, np.float32))
    np.testing.assert_array_equal(received, tile.reshape(heads, 10, 3).sum(axis=1))


def test_float64_keeps_its_digits_in_blocks(generator, monkeypatch):
    monkeypatch.setattr("ctr_kernels.sink_mass.blocked.SCORES", 1000)
    args, kwargs = arguments(CASES[5]._replace(sink=True), generator, torch.float64)
    truth = exactly(args, kwargs)
    ran = sink_mass.run(*args, **kwargs)
    assert ran.backend == "cpu"
    for found, expected in zip(ran.value, truth, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)


PEAK = """
import re, torch
from pathlib import Path
from ctr_kernels.sink_mass import sink_mass

torch.set_num_threads(1)

def grown(dtype, length):
    q = torch.randn(1, 2, length, 8, dtype=dtype)
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is in use
    before = int(re.search(r"VmRSS:\\s*(\\d+)", status.read_text())[1])
    sink_mass.on("cpu")(q, q, q, scaling=0.3)
    return (int(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1]) - before) / 1024

for dtype in (torch.float32, torch.bfloat16, torch.float64):
    grown(dtype, 40)
    print(grown(dtype, 6000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_pattern_is_ever_whole(measured):
    """Two heads of 6,000 × 6,000 would be 275 MiB in float32, 550 in float64."""
    out = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    grown = [float(line) for line in out.stdout.split()]
    for dtype, mebibytes, limit in zip(
        ("float32", "bfloat16", "float64"), grown, (40, 40, 120), strict=True
    ):
        measured(
            f"sink_mass, {dtype}, 6,000 tokens: memory", f"{mebibytes:.0f} MiB", f"below {limit}"
        )
        assert mebibytes < limit


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_logits_give_the_harmonic_sums(backend):
    """A query at q gives each of its q + 1 keys 1 / (q + 1): the first receives H_T."""
    n = 45
    q, k = torch.zeros(1, 2, n, 4), torch.ones(1, 1, n, 4)
    found = sink_mass.on(backend)(q, k, scaling=1.0)
    harmonic = [math.fsum(1 / (q + 1) for q in range(k, n)) for k in range(n)]
    torch.testing.assert_close(found.received, torch.tensor(harmonic).expand(1, 2, n))
    assert found.z is None
    assert found.missing.eq(0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_reads_views_leaves_them_alone_and_repeats_itself(backend, generator):
    args, kwargs = arguments(CASES[5], generator)
    across = [x.mT.contiguous().mT for x in args]  # features are not next to one another
    before = [x.clone() for x in across]
    found = sink_mass.on(backend)(*across, **kwargs)
    again = sink_mass.on(backend)(*across, **kwargs)
    without = sink_mass.on(backend)(*across[:2], **kwargs)
    agree(found, args, kwargs)
    for a, b, c in zip(found[:3], again[:3], without[:3], strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    assert all(torch.equal(x, y) for x, y in zip(across, before, strict=True))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_what_is_not_a_number_is_not_hidden(backend, generator):
    args, kwargs = arguments(Case("causal"), generator)
    args[0][0, 1, 30] = float("nan")
    found = sink_mass.on(backend)(*args, **kwargs)
    assert found.z is not None
    for x in (found.lse, found.z[..., 0]):
        assert x.isnan().nonzero().tolist() == [[0, 1, 30]]
    assert found.received[0, 1, :31].isnan().all()
    assert found.received[0, [0, 2]].isfinite().all()


def test_the_device_and_the_dtype_pick_the_implementation():
    q = torch.ones(2, 3, 5, 4)
    assert sink_mass.run(q, q, scaling=1.0).backend == "cpu"
    assert sink_mass.run(q.bfloat16(), q.bfloat16(), scaling=1.0).backend == "cpu"
    nowhere = q.to("meta")
    ran = sink_mass.run(nowhere, nowhere, nowhere, scaling=1.0)
    assert ran.backend == "reference"
    assert [x.shape for x in ran.value if x is not None] == [(2, 3, 5), (2, 3, 5), (2, 3), q.shape]
    with pytest.raises(Unsupported, match="CPU"):
        sink_mass.on("cpu")(nowhere, nowhere, scaling=1.0)


def test_triton_declines_what_it_cannot_do():
    q = torch.ones(1, 1, 2, 4)
    for args, why in (
        ((q.double(), q.double()), "float32"),
        ((q, q.bfloat16()), "one dtype"),
        ((torch.ones(1, 1, 2, 257),) * 2, "256"),
    ):
        with pytest.raises(Unsupported, match=why):
            sink_mass.on("triton")(*args, scaling=1.0)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(-1, 11)), min_size=1, max_size=20))
def test_blocks_that_nobody_sees_are_not_computed(edges):
    """The loop of a key block begins and ends with the query blocks that see one of its keys."""
    seen_by = pytest.importorskip("ctr_kernels.sink_mass.triton")._seen_by
    low, high = torch.tensor(edges, dtype=torch.int32).T.unsqueeze(1)
    first, last = seen_by(low, high, 12, 4, 5)
    for block in range(3):
        keys = range(5 * block, min(5 * block + 5, 12))
        # Of a block of queries only the reach of all of them together is known.
        reach = [
            [range(a, b + 1) for a, b in edges[i : i + 4] if a <= b]
            for i in range(0, len(edges), 4)
        ]
        sees = [
            4 * i
            for i, rows in enumerate(reach)
            if rows and min(r[0] for r in rows) <= keys[-1] and max(r[-1] for r in rows) >= keys[0]
        ]
        if sees:
            assert (first[0, block], last[0, block]) == (sees[0], sees[-1] + 4)
        else:
            assert first[0, block] >= last[0, block]


def test_triton_launches_on_the_device_of_its_argument(monkeypatch):
    devices = []
    device_of = torch.cuda.device_of
    monkeypatch.setattr(torch.cuda, "device_of", lambda x: devices.append(x) or device_of(x))
    q = torch.ones(1, 1, 2, 4)
    sink_mass.on("triton")(q, q, scaling=1.0)
    assert [seen is q for seen in devices] == [True]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"key": torch.ones(2, 4, 5, 3)}, "6 query heads over 4 key heads"),
        ({"key": torch.ones(2, 2, 5, 4)}, "key"),
        ({"value": torch.ones(2, 2, 6, 3)}, "value"),
        ({"low": torch.ones(3, 7)}, "low"),
        ({"high": torch.ones(2, 5)}, "high"),
        ({"softcap": 0.0}, "softcap=0.0"),
        ({"softcap": math.nan}, "softcap=nan"),
        ({"sink": torch.ones(2)}, "sink"),
    ],
)
def test_arguments_that_do_not_fit_are_named_in_a_line(changed, why):
    fine = {"query": torch.ones(2, 6, 7, 3), "key": torch.ones(2, 2, 5, 3), "value": None}
    fine |= dict.fromkeys(("low", "high", "softcap", "sink"))
    check(**fine)
    with pytest.raises(ValueError, match=why) as refusal:
        check(**fine | changed)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_implementation_checks(backend):
    with pytest.raises(ValueError, match="softcap=-1"):
        sink_mass.on(backend)(*(torch.ones(1, 1, 2, 3),) * 2, scaling=1.0, softcap=-1.0)
