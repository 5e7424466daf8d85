"""Sparse methods in a prepared model: budgets, the model put back, factors cut from larger ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import random_text, tiny_llama

from bridge.decode.baselines import plans
from bridge.decode.inputs import calibrate
from bridge.decode.plan import Setting, read_share
from bridge.decode.recipe import fit
from experiments.decoding.activation_measure import Seen
from experiments.fewshot.ask import ask
from experiments.fewshot.task import Item, Task
from experiments.parts.intervened import DENSE, Variant
from experiments.parts.r_sparse import sparse_found
from experiments.parts.r_sparse.asked import Questions, answered
from experiments.parts.r_sparse.searched import Search, evolution, knapsacks
from experiments.parts.r_sparse.sparse import Gating, Sparse, in_int4
from experiments.parts.work import Amounts, prepared
from experiments.progress import Progress
from experiments.settings import BadOption, Reading
from mech.errors import BadInput

GATING = Gating(settle=1, settling=4, keep=160)
TINY = Amounts(
    calibration=4, calibration_seq=40, windows=3, context=40, sequences=2, seq=64, blocks=0
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparse")
    tiny_llama(folder / "tiny")
    random_text(folder / "text.txt", 0)
    return prepared(Reading(str(folder / "tiny"), folder / "text.txt"), TINY, Progress())


@pytest.fixture
def sparse(work) -> Sparse:
    return Sparse(work, GATING, Progress())


def measured(sparse: Sparse, method: str, sparsity: float, *inside) -> Seen:
    found = sparse.seen(method, sparsity, *inside)
    assert isinstance(found, Seen)
    return found


def weights(work) -> list[torch.Tensor]:
    return [value.clone() for value in work.loaded.model.state_dict().values()]


@pytest.mark.parametrize("factors", ["svd", "moment"])
def test_factors_cut_from_larger_ones_are_those_of_a_fit(work, factors):
    model = work.loaded.model
    sparse = Sparse(work, replace(GATING, settle=0), Progress())
    sparse.given.fitted(plans.low_rank(sparse.shapes, 0.2))  # larger factors are kept now
    plan = dict.fromkeys(sparse.shapes, Setting(0.3, 0.5, factors=factors))
    found = sparse.given.fitted(plan)
    batches = list(work.calibration.split(4))
    wanted = fit(model, plan, calibrate(model, batches, keep=GATING.keep, seed=GATING.seed))
    assert found.plan == wanted.plan
    assert found.down.keys() == wanted.down.keys() == plan.keys()
    for name, threshold in wanted.thresholds.items():
        assert torch.equal(found.thresholds[name], threshold)
        pair = found.down[name] @ found.up[name]
        torch.testing.assert_close(pair, wanted.down[name] @ wanted.up[name])
    found.check(model)


@pytest.mark.parametrize("method", ["r-sparse", "teal", "griffin", "relu"])
def test_budget_is_met_and_the_model_put_back(work, sparse, method):
    before = weights(work)
    dense = measured(sparse, "dense", 0.0)
    inside = []
    one = measured(sparse, method, 0.4, lambda: inside.append(sparse.losses()))
    again = measured(Sparse(work, GATING, Progress()), method, 0.4)
    assert np.array_equal(inside[0], one.nll)
    assert np.array_equal(one.nll, again.nll)
    assert not np.array_equal(one.nll, dense.nll)
    assert np.array_equal(measured(sparse, "dense", 0.0).nll, dense.nll)
    assert all(map(torch.equal, before, weights(work)))
    assert (dense.planned, dense.read) == (1.0, 1.0)
    if method == "relu":
        assert one.planned == one.read
    else:
        assert one.planned == pytest.approx(0.6)
        assert one.read == pytest.approx(0.6, abs=0.06)


def test_only_tokens_behind_the_prompt_are_scored_and_sparse(work):
    """Before the prompt's end nothing changes, so that a later start leaves less to lose."""
    nll = {}
    for share in (0.0, 0.5):
        sparse = Sparse(work, replace(GATING, sparse_from=share, settle=0), Progress())
        dense, teal = measured(sparse, "dense", 0.0), measured(sparse, "teal", 0.9)
        nll[share] = np.abs(teal.nll - dense.nll).mean()
        assert sparse.given.settling.sparse_from == share
    assert nll[0.0] != nll[0.5]


def test_what_cannot_read_so_little_is_told_and_what_is_unknown_refused(sparse):
    losses = sparse_found.judged(sparse, [DENSE, Variant("cats", 0.9)])
    assert set(losses.seen) == {DENSE}
    assert "budget" in losses.left[Variant("cats", 0.9)]
    assert "cats 90%" in sparse_found.table(losses).rows[-1]
    with pytest.raises(BadInput, match="no method"):
        sparse.seen("cat", 0.5)


def test_int4_weights_are_others_and_go_again(work, sparse):
    before, dense = weights(work), sparse.losses()
    with in_int4(work, Progress()):
        assert not np.array_equal(sparse.losses(), dense)
        assert measured(Sparse(work, GATING, Progress()), "r-sparse", 0.4).read < 0.7
    assert all(map(torch.equal, before, weights(work)))


def test_searched_recipes_read_as_much_and_are_the_same_twice(work, sparse):
    search = Search(samples=2, length=20, population=4, generations=1, group=9)
    found = knapsacks(sparse, search, (0.4, 0.6))
    for sparsity, plan in found.items():
        assert read_share(plan, sparse.shapes) == pytest.approx(1 - sparsity)
    plan, trials = evolution(sparse, search, 0.5)
    assert evolution(sparse, search, 0.5) == (plan, trials)
    assert trials > 8
    assert read_share(plan, sparse.shapes) == pytest.approx(0.5)
    assert {setting.sparsity for setting in plan.values()} == {0.5}
    assert sparse.under("found", plan).planned == pytest.approx(0.5)
    with pytest.raises(BadOption, match="samples"):
        Search(samples=4).check(4)


def test_answers_are_those_of_ask_on_the_dense_model(work):
    items = (
        Item("w1 w2 w3 w4", (" w5", " w6 w7 w8", " w9"), 1),
        Item("w9 w2", (" w1 w1", " w3"), 0),
    )
    task = Task("words", items, items[:1])
    mine = answered(work, task, lambda _: None)
    theirs = ask(work.loaded.model, work.loaded.tokenizer, task, 0)
    np.testing.assert_allclose(mine.logp, theirs.logp, rtol=1e-5)
    assert mine.first_ids == theirs.first_ids
    assert list(mine.gold) == [1, 0]


def test_questions_of_files_that_are_not_there_become_generated_ones(tmp_path, monkeypatch):
    monkeypatch.delenv("CTR_DATA", raising=False)
    (drawn,) = Questions(items=3).drawn()
    assert (drawn.name, len(drawn.items)) == ("induction", 3)
    monkeypatch.setenv("CTR_DATA", str(tmp_path))
    assert [task.name for task in Questions(("piqa", "labels"), items=3).drawn()] == ["labels"]
    assert Questions(()).drawn() == []
    with pytest.raises(BadOption, match="no-task"):
        Questions(("no-task",)).drawn()


@pytest.mark.parametrize(
    ("gating", "sparsities", "said"),
    [
        (Gating(sparse_from=1.0), (0.5,), "sparse-from"),
        (Gating(settle=-1), (0.5,), "settle"),
        (Gating(keep=1), (0.5,), "keep"),
        (Gating(), (), "sparsities"),
        (Gating(), (0.0,), "sparsities"),
    ],
)
def test_what_measures_nothing_is_refused(gating, sparsities, said):
    with pytest.raises(BadOption, match=said):
        gating.check(sparsities)
