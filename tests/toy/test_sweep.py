"""A sweep trains what its plan says, and no death of its process changes a byte of it."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toy.atlas import BASINS, Place, basin, by_signs, outcome, wilson
from toy.errors import Refused
from toy.predict import logistic, predict
from toy.sweep import Report, sweep
from toy.sweep_plan import Plan, groups, initial, starts
from toy.sweep_state import LOCK, PLAN, check_plan
from toy.train import drawn, train

TINY = Plan(
    initialisations=("diagonal", "tagged"), optimizers=("adam",), data=("uniform", "gaussian"),
    seeds=3, steps=12, checkpoints=4, batch=4, shortest=3, longest=7, lanes=3,
)  # fmt: skip
QUIET = Report(lambda at: None, lambda line: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted sweep: its folder and its trials."""
    folder = tmp_path_factory.mktemp("whole") / "state"
    return folder, sweep(TINY, folder, QUIET)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("lanes", [1, 4, 6, 100])
def test_every_seed_of_every_cell_is_in_one_group(lanes):
    plan = replace(TINY, lanes=lanes)
    rows = {}
    for group in groups(plan):
        here = rows.setdefault((group.optimizer, group.data), [])
        here += range(*group.part.indices(6))
        assert 1 <= group.part.stop - group.part.start <= lanes
    assert rows == {("adam", "uniform"): [*range(6)], ("adam", "gaussian"): [*range(6)]}


def test_a_cell_is_the_training_of_its_recipe(whole):
    """Beside which seeds a seed is trained changes no more than rounding does in 12 steps."""
    _, trials = whole
    assert [t.cell.data for t in trials] == ["uniform"] * 2 + ["gaussian"] * 2
    trial = trials[3]
    start = replace(starts(TINY)["tagged"], seeds=3)
    for ours, theirs in zip(trial.start, drawn(start), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    alone = train(
        replace(start, steps=12, checkpoints=4, batch=4, shortest=3, longest=7, data="gaussian")
    )
    for ours, theirs in zip(trial.training.state.weights, alone.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trial.training.history.loss, alone.history.loss, rtol=1e-4)


def test_a_finished_sweep_is_read_back(whole):
    folder, trials = whole
    before, told = contents(folder), []
    again = sweep(TINY, folder, Report(told.append, lambda line: None))
    assert contents(folder) == before
    assert told == [f"adam on {data}, kept" for data in TINY.data for _ in range(8)]
    for ours, theirs in zip(again, trials, strict=True):
        np.testing.assert_array_equal(ours.training.history.loss, theirs.training.history.loss)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other group"])
def test_a_damaged_group_is_trained_again_and_said(whole, tmp_path, damage):
    wanted = contents(whole[0])
    name = "group-0002.safetensors"
    for file, content in wanted.items():
        (tmp_path / file).write_bytes(content)
    flipped = bytearray(wanted[name])
    flipped[-9] ^= 4
    left = {"flip": flipped, "cut": wanted[name][:-5], "empty": b"",
            "other group": wanted["group-0000.safetensors"]}  # fmt: skip
    (tmp_path / name).write_bytes(left[damage])
    said = []
    sweep(TINY, tmp_path, Report(lambda at: None, said.append))
    assert len(said) == 1
    assert name in said[0]
    assert "begins again" in said[0]
    assert contents(tmp_path) == wanted


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 24), ("seed", 1), ("data", ("uniform",)), ("s_tag", 4.5)]
)
def test_another_plan_is_refused(whole, field, value):
    before = contents(whole[0])
    with pytest.raises(Refused, match=f"was begun with {field} "):
        sweep(replace(TINY, **{field: value}), whole[0], QUIET)
    assert contents(whole[0]) == before


def test_folders_that_are_not_ours_are_refused(whole, tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    (tmp_path / "thesis.pdf.partial").write_text("half of it")
    with pytest.raises(Refused, match=r"thesis\.(tex|pdf\.partial), which no sweep wrote"):
        sweep(TINY, tmp_path, QUIET)
    assert (tmp_path / "thesis.pdf.partial").read_text() == "half of it"
    with pytest.raises(Refused, match="is a file"):
        sweep(TINY, tmp_path / "thesis.tex", QUIET)
    with (whole[0] / LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="another sweep is using"):
            sweep(TINY, whole[0], QUIET)
    with pytest.raises(Refused, match="no initialisation 'zeros': choose from diagonal"):
        initial(replace(TINY, initialisations=("zeros",)))


def test_a_plan_that_was_half_written_is_written_again(tmp_path):
    (tmp_path / f"{PLAN}.partial").write_text("{")
    check_plan(TINY, tmp_path)
    assert sorted(contents(tmp_path)) == [PLAN]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe"])
def test_a_plan_that_cannot_be_read_is_refused(tmp_path, content):
    (tmp_path / PLAN).write_bytes(content)
    with pytest.raises(Refused, match=r"sweep\.json is damaged"):
        check_plan(TINY, tmp_path)


SCRIPT = """
import os, signal, sys
from pathlib import Path
from tests_plan import PLAN
from toy import files, sweep
count, real = 0, os.fsync
def fsync(handle):
    global count
    count += 1
    if count == int(sys.argv[2]):  # written in part, not yet renamed; or renamed, not yet synced
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)
os.fsync = fsync
sweep.sweep(PLAN, Path(sys.argv[1]), sweep.Report(lambda at: None, lambda line: None), every=0)
"""


def start(folder, tmp_path, kill_at):
    (tmp_path / "tests_plan.py").write_text(f"from toy.sweep_plan import Plan\nPLAN = {TINY!r}\n")
    search = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    environment = os.environ | {
        "PYTHONPATH": search,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),  # compiled once for all of them
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-c", SCRIPT, str(folder), str(kill_at)]
    return subprocess.Popen(command, env=environment)


def test_killed_at_any_moment_it_ends_with_the_same_bytes(whole, tmp_path):
    """SIGKILL before a rename, after one, and at a moment that the clock chooses; then to the end.

    An odd fsync is that of a file under its partial name, an even one that of the folder.
    """
    folder = tmp_path / "state"
    for kill_at in (3, 6):
        process = start(folder, tmp_path, kill_at)
        assert process.wait(timeout=300) == -signal.SIGKILL
        assert any(name.endswith(".partial") for name in contents(folder)) == (kill_at % 2 == 1)
    process = start(folder, tmp_path, -1)
    while process.poll() is None and not (folder / "group-0002.safetensors").exists():
        time.sleep(0.001)
    process.kill()
    assert process.wait(timeout=300) == -signal.SIGKILL
    process = start(folder, tmp_path, -1)
    assert process.wait(timeout=300) == 0
    assert contents(folder) == contents(whole[0])


def test_wilson_covers_what_it_says():
    """The share of binomial samples whose interval holds p: 95%, within five standard errors and
    the lattice's 2%."""
    rng = np.random.default_rng(0)
    for p, n in [(0.5, 64), (0.1, 64), (0.9, 200)]:
        drawn_hits = rng.binomial(n, p, 4000)
        held = [wilson(int(h), n).low <= p <= wilson(int(h), n).high for h in drawn_hits]
        assert abs(np.mean(held) - 0.95) < 5 * np.sqrt(0.05 * 0.95 / 4000) + 0.02
    assert wilson(0, 96).low == 0.0
    assert wilson(0, 96).high == pytest.approx(1.959964**2 / (96 + 1.959964**2))
    assert wilson(5, 5).high == 1.0
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_basins_are_named_by_the_signs_of_w_and_d(whole):
    w, d = np.array([1.0, 1, -1, -1, np.nan]), np.array([1.0, -1, 1, -1, np.nan])
    named = [BASINS[k] for k in basin(Place(w, d, w, w))]
    assert named == ["theorem", "negative d", "negative w", "both negative", "both negative"]
    seen = outcome(whole[1][0], sequences=32)
    assert seen.found.shape == (3,)
    assert (seen.start.w > 0).all()  # diagonal: W_V1 starts at -0.5 and noise
    np.testing.assert_allclose(seen.start.s_tag, 5.0)


def test_success_by_signs_counts_every_seed_once():
    rng = np.random.default_rng(1)
    start = Place(*rng.normal(size=(4, 500)))
    found = (start.w > 0) & (start.s_num < 0)
    rates = by_signs(start, found)
    assert sum(rate.n for rate in rates) == 500
    for code, rate in enumerate(rates):
        w_positive, s_num_negative = code < 8, code % 2 == 1
        assert rate.hits == (rate.n if w_positive and s_num_negative else 0)


def test_logistic_is_at_the_minimum():
    """The gradient of the penalised likelihood vanishes there."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 3))
    hit = rng.random(300) < 1 / (1 + np.exp(-x @ [2.0, -1.0, 0.0]))
    b = logistic(x, hit)
    gradient = x.T @ (1 / (1 + np.exp(-x @ b)) - hit) + b
    np.testing.assert_allclose(gradient, 0, atol=1e-9)
    assert b[0] > 1 > 0 > b[1]


def test_what_tells_is_found_and_what_does_not_gains_nothing():
    rng = np.random.default_rng(3)
    features = np.stack([rng.choice([-1.0, 1.0], 400), rng.normal(size=400)], axis=1)
    rule = np.stack([features[:, 0] > 0, (features[:, 0] > 0) & (features[:, 1] > 0)])
    told = predict(features, ("sign", "size"), rule)
    assert told.draws == 200
    assert told.accuracy.mean() > 0.9
    assert told.control.mean() < 0.75
    chance = predict(features, ("sign", "size"), rng.random((2, 400)) < 0.3)
    assert abs((chance.accuracy - chance.control).mean()) < 0.05
