"""One budget for every method: what is read, paired, resumed; on a tiny model, and by hand."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from tiny import random_text, tiny_llama

from bridge.decode.baselines import plans
from bridge.decode.recipe import fit
from bridge.evaluate import TokenLosses
from bridge.sites import linears, module
from bridge.stream import hooked
from experiments.decoding import (
    activation,
    activation_measure,
    activation_plans,
    activation_read,
    activation_sections,
    activation_ways,
)
from experiments.decoding.activation import DENSE, METHODS, Amounts, Config, Variant
from experiments.decoding.activation_judge import TOLERANCE, bought, judged
from experiments.decoding.activation_measure import Seen, scored
from experiments.intervals import interval
from experiments.progress import Progress
from experiments.settings import BadOption, Reading
from mech.errors import BadInput
from mech.load import load

TINY = Amounts(
    calibration=4,
    calibration_seq=40,
    keep=120,
    greedy=1,
    greedy_seq=24,
    greedy_step=1.0,
    context=48,
    windows=6,
)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    folder = tmp_path_factory.mktemp("activation")
    tiny_llama(folder / "tiny")
    random_text(folder / "text.txt", 0)
    shapes = {
        n: (m.out_features, m.in_features)
        for n, m in linears(load(str(folder / "tiny")).model).items()
    }
    plan = {n: asdict(s) for n, s in plans.r_sparse_moment(shapes, 0.55).items()}
    (folder / "ours.json").write_text(json.dumps({"plan": plan}))
    return Config(
        Reading(str(folder / "tiny"), text=folder / "text.txt"),
        sparsities=(0.4, 0.7),
        plans=(folder / "ours.json",),
        amounts=TINY,
        state=folder / "state",
    )


@pytest.fixture(scope="module")
def result(config):
    return activation.run(config, Progress())


def test_every_method_keeps_to_its_budget_or_says_why_not(result):
    dense, *others = result.judged
    assert dense.variant == DENSE
    assert (dense.dense.low, dense.dense.high) == (0, 0)
    for j in others:
        if j.variant.method == "relu":
            # Half of the neurons of a random model: all that is certain is that some are read.
            assert 0.5 < j.read < 1
        elif j.variant.method == "multi-phase":
            assert j.read == 1
        else:
            assert j.planned == pytest.approx(1 - j.variant.sparsity, abs=1e-6)
        assert math.isfinite(j.ppl)
    # A text of random words: nobody can tell methods apart, but all are there.
    assert {j.variant.method for j in others} >= set(METHODS) - {"griffin", "cats"}
    why = {(left.variant.method, left.variant.sparsity): left.why for left in result.left}
    assert "a prompt" in why["griffin", 0.4]
    assert "never skipped" in why["cats", 0.7]


def test_what_is_read_is_what_gated_tokens_keep(config):
    """Counted by hand, in front of every linear, of the second half of a batch."""
    few = replace(config, plans=(), sparse_from=0.5, settle=0)
    work = activation_read.Work.prepared(few, Progress())
    given, ids = work.given, work.windows
    for method in ("teal", "r-sparse-moment", "teal-signed"):
        made = activation_ways.made(given, method, 0.6)
        recipe, kept, whole = made.recipe, 0.0, 0
        assert recipe is not None
        with activation_ways.applied(given, made, 0.5) as realised:
            counts: dict[str, float] = {}

            def count(name, to=counts, recipe=recipe):
                def read(_, args, __):
                    x = args[0][:, 24:].abs()
                    to[name] = float((x > recipe.thresholds[name]).double().mean())

                return read

            hooks = [(module(given.model, name), "pre", count(name)) for name in work.shapes]
            with hooked(hooks), torch.no_grad():
                given.model(ids, use_cache=False)
        for name, (d_out, d_in) in work.shapes.items():
            rank = recipe.plan[name].rank(d_out, d_in)
            kept += counts[name] * d_out * d_in + rank * (d_out + (1 - counts[name]) * d_in)
            whole += d_out * d_in
        assert realised.share == pytest.approx(kept / whole, abs=1e-4)


def test_a_plan_is_compared_with_teal_of_its_own_budget_and_with_the_best(result):
    ours = next(j for j in result.judged if j.variant.plan)
    assert ours.variant == ("ours", 0.55, True)
    assert ours.rival == "teal"
    assert ours.teal == ours.best
    assert ours.teal is not None
    assert ours.teal.n == 6
    assert any(j.variant == ("teal", 0.55, False) for j in result.judged)


def test_a_second_run_reads_what_the_first_has_measured(config, result, monkeypatch):
    def never(*_):
        raise AssertionError("it was measured again")

    monkeypatch.setattr(activation_measure, "_measure", never)
    assert repr(activation.run(config, Progress()).judged) == repr(result.judged)
    for other in (
        replace(config, sparse_from=0.5),
        replace(config, settle=1),
        replace(config, seed=1),
        replace(config, amounts=replace(TINY, settling=1)),
        replace(config, amounts=replace(TINY, keep=100)),
        replace(config, methods=("multi-phase",), phases=2, plans=()),
        replace(config, amounts=replace(TINY, greedy_seq=16), methods=("teal-greedy",), plans=()),
    ):
        with pytest.raises(AssertionError, match="again"):
            activation.run(other, Progress())


def test_after_a_prompt_griffin_is_there_and_every_mode_is_its_own(config):
    modes = ("griffin", "griffin-random", "griffin-sample", "griffin-topk-sample")
    few = replace(config, sparse_from=0.5, methods=("teal", "multi-phase", *modes), plans=(),
                  sparsities=(0.5,))  # fmt: skip
    found = activation.run(few, Progress())
    assert not found.left
    losses = {j.variant.method: j.dense.mean for j in found.judged}
    assert len(set(losses.values())) == 7
    for j in found.judged[3:]:
        assert j.read == pytest.approx(0.5, abs=0.01)
    assert "the first 24 tokens of a window are dense" in found.definition


def test_settled_thresholds_read_what_the_budget_says(config):
    """CATS's activations among them."""
    names = ("teal", "sparse", "cats-teal")
    both = (*names, *(f"{name}-unsettled" for name in names))
    few = replace(config, settle=4, methods=both, plans=(), sparsities=(0.7,))
    found = activation.run(few, Progress())
    off = {j.variant.method: abs(j.read - 0.3) for j in found.judged}
    for name in names:
        assert off[name] < off[f"{name}-unsettled"] / 2


def test_without_settling_the_ending_says_nothing_and_nothing_is_measured_twice(config, result):
    names = ("teal", "teal-unsettled", "r-sparse-unsettled", "griffin")
    few = replace(config, settle=0, methods=names, plans=(), sparsities=(0.7,))
    found = activation.run(few, Progress())
    assert [j.variant.method for j in found.judged] == ["dense", "teal", "r-sparse"]
    before = {j.variant.method: j for j in result.judged if j.variant.sparsity == 0.7}
    # The very files that the settled run wrote for its unsettled rows.
    assert found.judged[1].dense == before["teal-unsettled"].dense
    assert found.judged[2].dense == before["r-sparse-unsettled"].dense
    assert before["teal"].dense != before["teal-unsettled"].dense
    (section,) = activation.sections(found)
    assert "of what is read in the dense model" in section.text[0]


def test_int4_is_where_everything_starts_from(config, result):
    few = replace(config, int4=True, methods=("teal", "cats-teal"), plans=(), sparsities=(0.4,))
    found = activation.run(few, Progress())
    assert found.before == pytest.approx(result.judged[0].ppl)
    assert found.judged[0].ppl != pytest.approx(found.before, rel=1e-6)
    (section,) = activation.sections(found)
    assert "in INT4" in section.text[0]


def test_the_page_names_the_best_and_whether_it_is_clear(result):
    (section,) = activation.sections(result)
    (table,) = section.tables
    assert len(table.rows) == len(result.judged)
    fair = [j for j in result.judged if j.variant.sparsity == 0.4 and not j.whole
            and j.planned < 0.601]  # fmt: skip
    best = min(fair, key=lambda j: j.ppl)
    assert any(line.startswith(f"At 40%, {best.variant.method} predicts") for line in section.text)
    assert any("the plan ours is not told apart from" in line for line in section.text)
    (picture,) = section.pictures
    assert isinstance(picture.figure, Figure)
    assert len(picture.figure.axes) == 2


def test_only_what_a_gated_token_predicted_is_scored():
    # Two windows of a prefix and 5 tokens: token i of a window is predicted at place i - 1.
    losses = TokenLosses(
        torch.arange(10, dtype=torch.float64), torch.arange(10), torch.arange(10) // 5
    )
    np.testing.assert_allclose(scored(losses, 5, 1, 0), [2.0, 7.0])
    np.testing.assert_allclose(scored(losses, 5, 1, 3), [3.5, 8.5])
    # Without a prefix the first of a window is not scored, and its place is 0.
    some = TokenLosses(*(part[[1, 2, 3, 4, 6, 7, 8, 9]] for part in losses))
    np.testing.assert_allclose(scored(some, 5, 0, 3), [4.0, 9.0])


def test_who_reads_more_has_not_won():
    """By more than the tolerance; nor has it lost who reads less."""

    def seen(shift, read):
        return Seen(np.arange(4.0) + shift, 0.5, read)

    def page(ours, theirs):
        found = judged({
            DENSE: seen(0.0, 1.0),
            Variant("teal", 0.5): seen(1.0, theirs),
            Variant("sparse", 0.5): seen(0.5, ours),
            Variant("ours", 0.5, plan=True): seen(0.25, ours),
        })  # fmt: skip
        result = activation.Result(Config(), None, "", "", None, found, [], {})  # type: ignore
        return found, activation_sections._verdict(result, 0.5), activation_sections._plan(found[3])

    found, words, plan = page(0.5, 0.5 - 0.9 * TOLERANCE)
    assert "ours predicts best" in words
    assert "50.00% of the bytes read, against TEAL's" in words
    assert "49.55%" in words
    assert "no win" not in words
    assert "better than the best baseline of no larger budget, sparse" in plan
    assert found[3].best_read == 0.5
    _, words, _ = page(0.5, 0.5 - 1.1 * TOLERANCE)
    assert "no win: it reads more" in words
    better, worse = interval(np.full(3, -1.0)), interval(np.full(3, 1.0))
    assert bought(better, 0.51, 0.5)
    assert not bought(better, 0.49, 0.5)
    assert bought(worse, 0.49, 0.5)
    assert not bought(worse, 0.51, 0.5)
    assert not bought(interval(np.array([-1.0, 1.0])), 0.9, 0.5)


def test_plans_of_one_name_do_not_take_each_other_s_place(config, tmp_path):
    """Several folders called recipe: where the sparsity is one, the path tells them apart."""
    a, b, c = (tmp_path / part / "recipe" for part in ("40", "50/x", "50/y"))
    assert activation_plans.names([a, b], [0.4, 0.5]) == ["recipe", "recipe"]
    assert activation_plans.names([a, b, c], [0.4, 0.5, 0.5]) == [
        "40/recipe",
        "x/recipe",
        "y/recipe",
    ]
    assert activation_plans.names([], []) == []
    (plan,) = config.plans
    again = [tmp_path / part / plan.name for part in "xy"]
    for file in again:
        file.parent.mkdir()
        file.write_bytes(plan.read_bytes())
    few = replace(config, plans=(*again, again[0]), methods=("teal",), sparsities=(0.55,))
    work = activation_read.Work.prepared(few, Progress())
    assert list(work.found_plans) == [("x/ours", 0.55, True), ("y/ours", 0.55, True)]


def test_a_recipe_is_as_it_was_saved_and_the_page_says_so(config, tmp_path):
    work = activation_read.Work.prepared(config, Progress())
    saved = fit(work.loaded.model, plans.teal(work.shapes, 0.7), work.read)
    saved.save(tmp_path / "mine")
    few = replace(config, plans=(tmp_path / "mine",), methods=("teal-unsettled",),
                  sparsities=(0.7,))  # fmt: skip
    found = activation.run(few, Progress())
    by_name = {j.variant.method: j for j in found.judged}
    assert by_name["mine"].dense == by_name["teal-unsettled"].dense
    assert by_name["mine"].dense != by_name["teal"].dense
    (section,) = activation.sections(found)
    assert "those of recipes are as they were saved" in section.text[0]


def test_differences_are_of_one_budget():
    def seen(shift, planned):
        return Seen(np.arange(4.0) + shift, planned, planned)

    found = judged(
        {
            DENSE: seen(0.0, 1.0),
            Variant("teal", 0.5): seen(1.0, 0.5),
            Variant("sparse", 0.5): seen(0.75, 0.5),
            Variant("relu", 0.5): seen(0.25, 0.8),
            Variant("ours", 0.5, plan=True): seen(0.5, 0.5),
            Variant("teal", 0.7): seen(2.0, 0.3),
            Variant("sparse", 0.7): seen(2.5, 0.3),
        }
    )
    teals = [None if j.teal is None else j.teal.mean for j in found]
    assert teals == [None, None, -0.25, -0.75, -0.5, None, 0.5]
    assert found[4].rival == "sparse"
    assert found[4].best is not None
    assert found[4].best[:3] == (-0.25, -0.25, -0.25)
    assert [j.dense.mean for j in found] == [0, 1, 0.75, 0.25, 0.5, 2, 2.5]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"methods": ()}, "--methods"),
        ({"sparsities": (1.0,)}, "--sparsities"),
        ({"sparse_from": 1.0}, "--sparse-from"),
        ({"amounts": Amounts(windows=1)}, "--windows"),
        ({"amounts": Amounts(calibration=1)}, "--greedy"),
        ({"phases": 0}, "--phases"),
    ],
)
def test_what_measures_nothing_is_refused(options, what):
    with pytest.raises(BadOption, match=what):
        activation.check(Config(**options))


def test_a_bad_method_and_a_bad_plan_are_one_line(config, tmp_path):
    few = replace(config, sparsities=(0.5,), methods=("teal",), plans=(), state=tmp_path)
    with pytest.raises(BadInput, match=r"no method 'deal': there are teal"):
        activation.run(replace(few, methods=("deal",)), Progress())
    with pytest.raises(BadInput, match="no method 'griffin-best'"):
        activation.run(replace(few, methods=("griffin-best",)), Progress())
    for content, what in (
        ("[]", "is no plan"),
        ("{", "is no plan"),
        ("[" * 100_000, "is no plan"),
        ("{}", "names no linear"),
        ('{"layers.0.mlp.up_proj": {"sparsity": 0.5, "factors": "pca"}}', "factors 'pca'"),
        ('{"plan": {"layers.0.mlp.up_proj": {"spar": 1}}}', "is no plan"),
        ('{"plan": {"layers.7.mlp.up_proj": {"sparsity": 0.5}}}', "which the model has not"),
    ):
        (tmp_path / "plan.json").write_text(content)
        with pytest.raises(BadInput, match=what):
            activation.run(replace(few, plans=(tmp_path / "plan.json",)), Progress())
    with pytest.raises(BadInput, match="cannot read"):
        activation.run(replace(few, plans=(tmp_path / "none.json",)), Progress())
