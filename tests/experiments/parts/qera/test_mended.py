"""Quantised weights, mended at equal rank, and adapters that start from them."""

import pytest
import torch

from bridge.operators import LowRank
from bridge.sites import linears
from experiments.parts.qera import mended, tuning
from experiments.parts.standing import predicted
from experiments.parts.work import Amounts, prepared
from experiments.progress import Progress
from experiments.settings import Reading
from mech.errors import BadInput

RANK = 3
EXACT, ZERO = "QERA-exact", "rounding"
NAMES = [ZERO, "ZeroQuant-V2", EXACT, mended.RICHER]


@pytest.fixture
def work(model):
    amounts = Amounts(calibration=6, calibration_seq=24, windows=3, context=16, sequences=2, seq=64)
    return prepared(Reading(str(model)), amounts, Progress())


@pytest.fixture
def found(work):
    grid = mended.quantizer("mxint", 2, 8)
    return mended.mended(work, grid, RANK, NAMES, "layers.1.*", Progress())


def test_every_way_has_the_same_linears_and_at_most_the_rank(work, found):
    for name in NAMES:
        assert set(found[name]) == set(linears(work.loaded.model, "layers.1.*"))
    for operator in found[EXACT].values():
        (term,) = (m for m in operator.modules() if isinstance(m, LowRank))
        assert term.left.shape[1] == RANK


def test_storage_of_the_richer_rounding_is_the_most_that_fits(found):
    rounded, exact, richer = (mended.bits(found[n]) for n in (ZERO, EXACT, mended.RICHER))
    assert rounded < richer <= exact
    for name, operator in found[mended.RICHER].items():
        budget = found[ZERO][name].bits() + 16 * RANK * sum(operator.shape)
        assert operator.bits() <= budget
        numbers = operator.shape[0] * operator.shape[1]
        assert operator.bits() + numbers > budget  # one more bit a code would not fit


def test_the_model_is_the_operators_inside_and_itself_after(work, found):
    model = work.loaded.model
    before = predicted(work, work.windows, lambda _: None)
    with mended.standing(model, found[EXACT]):
        inside = predicted(work, work.windows, lambda _: None)
    after = predicted(work, work.windows, lambda _: None)
    assert (before.nll == after.nll).all()
    assert (before.nll != inside.nll).any()


@pytest.mark.parametrize("name", [ZERO, EXACT])
def test_an_adapter_starts_where_its_operators_are(work, found, name):
    with mended.standing(work.loaded.model, found[name]):
        wanted = predicted(work, work.windows, lambda _: None).nll
    with tuning.adapted(work.loaded.model, found[name], RANK, seed=1):
        started = predicted(work, work.windows, lambda _: None).nll
    assert started == pytest.approx(wanted, abs=1e-5)


def test_training_moves_the_factors_alone_and_lowers_the_loss(work, found):
    model = work.loaded.model
    needed = {name: p.requires_grad for name, p in model.named_parameters()}
    with tuning.adapted(model, found[ZERO], RANK, seed=1) as factors:
        own = {id(factor) for factor in factors}
        frozen = {n: p.clone() for n, p in model.named_parameters() if id(p) not in own}
        assert all(p.requires_grad == (id(p) in own) for p in model.parameters())
        window = work.calibration[:1].repeat(30, 1)
        losses = tuning.tune(model, factors, window, 0.02)
        assert losses[-1] < losses[0] - 0.05
        for name, parameter in model.named_parameters():
            if name in frozen:
                assert torch.equal(parameter, frozen[name]), name
    assert {name: p.requires_grad for name, p in model.named_parameters()} == needed


def test_the_same_seed_starts_and_ends_the_same(work, found):
    def losses(seed):
        with tuning.adapted(work.loaded.model, found[ZERO], RANK, seed) as factors:
            return tuning.tune(work.loaded.model, factors, work.calibration, 0.01)

    assert losses(1) == losses(1)
    assert losses(1)[-1] != losses(2)[-1]


def test_a_bias_is_refused(work, found):
    linear = linears(work.loaded.model)["layers.1.mlp.down_proj"]
    linear.bias = torch.nn.Parameter(torch.zeros(linear.out_features))
    with (
        pytest.raises(BadInput, match="bias"),
        tuning.adapted(work.loaded.model, found[EXACT], RANK, 0),
    ):
        pass
