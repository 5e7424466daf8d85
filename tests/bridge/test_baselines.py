"""Thresholds, selections and budgets of the baselines, against what their papers' formulas say."""

import pytest
import torch
from torch.nn.functional import silu

from bridge.decode.baselines import cats, gated_mlp, greedy, griffin, plans, relu, teal
from bridge.decode.baselines.gated_mlp import gated_mlps
from bridge.decode.inputs import calibrate
from bridge.decode.plan import read_share
from bridge.decode.recipe import fit
from bridge.decode.sparsified import sparsified
from bridge.sites import linears, module
from bridge.stream import hooked, record
from mech.errors import BadInput


@pytest.fixture
def shapes(llama):
    return {n: (m.out_features, m.in_features) for n, m in linears(llama).items()}


@pytest.fixture
def inputs(llama, batches):
    return calibrate(llama, batches)


@torch.no_grad()
def logits(model, ids, **more):
    return model(ids, use_cache=False, **more).logits


@pytest.mark.parametrize("name", plans.UNIFORM)
@pytest.mark.parametrize("sparsity", [0.4, 0.5, 0.7, 1.0])
def test_uniform_recipes_read_their_share_exactly(name, sparsity, shapes):
    plan = plans.UNIFORM[name](shapes, sparsity)
    assert read_share(plan, shapes) == pytest.approx(1 - sparsity, abs=1e-12)
    for linear, setting in plan.items():
        d_out, d_in = shapes[linear]
        rank, whole = setting.rank(d_out, d_in), int((1 - sparsity) * d_out * d_in / (d_out + d_in))
        assert {"low-rank": rank == whole, "teal": rank == 0, "sparse": rank == 0}.get(name, True)


def test_the_signed_histogram_is_the_quantile_of_magnitudes_where_inputs_are_symmetric(generator):
    x = torch.randn(200, 301, generator=generator)
    for sparsity in (0.3, 0.5, 0.9):
        exact = float(torch.special.ndtri(torch.tensor(0.5 + sparsity / 2)))
        assert teal.signed_threshold(x, sparsity) == pytest.approx(exact, abs=0.02)
        share = float((x.abs() <= teal.signed_threshold(x, sparsity)).float().mean())
        assert share == pytest.approx(sparsity, abs=0.01)
    # Shifted inputs are no longer symmetric: the published threshold leaves out far less than 0.5.
    shifted = teal.signed_threshold(x - 1, 0.5)
    assert float(((x - 1).abs() <= shifted).float().mean()) < 0.2


def test_the_histogram_has_the_release_s_bins_and_interpolates_between_centres():
    x = torch.cat([torch.arange(-50.0, 50.0), torch.tensor([1e6])])
    # 4 bins: [-50, -49], [-49, 0], [0, 49], [49, 1e6]; shares up to their ends, by hand.
    upto = [2 / 101, 51 / 101, 100 / 101, 1.0]
    centres = [-49.5, -24.5, 24.5, (49 + 1e6) / 2]
    part = (0.5 - upto[0]) / (upto[1] - upto[0])
    assert teal.signed_threshold(x, 0.0, bins=4) == pytest.approx(centres[0] + part * 25.0)
    part = (0.75 - upto[1]) / (upto[2] - upto[1])
    assert teal.signed_threshold(x, 0.5, bins=4) == pytest.approx(centres[1] + part * 49.0)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: teal.signed_threshold(torch.ones(5), 1.5), "sparsity 1.5"),
        (lambda: teal.signed_threshold(torch.ones(5), 0.5, bins=2), "2 bins"),
        (lambda: teal.signed_threshold(torch.ones(0), 0.5), "no finite"),
        (lambda: teal.signed_threshold(torch.tensor([torch.nan]), 0.5), "no finite"),
        (lambda: relu.phases(torch.ones(2, 3), 0.5, 9), "too few for 9"),
        (lambda: relu.phases(torch.ones(2, 3), 2.0, 1), "sparsity 2"),
        (lambda: griffin.chosen(torch.ones(1, 3), 4, "topk"), "4 neurons of 3"),
        (lambda: griffin.chosen(torch.ones(1, 3), 1, "best"), "selection 'best'"),
    ],
)
def test_bad_input_is_one_clear_line(call, what):
    with pytest.raises(BadInput, match=what):
        call()


def test_published_thresholds_stand_in_recipes_of_magnitudes_only(llama, inputs, shapes):
    recipe = fit(llama, plans.teal(shapes, 0.5), inputs)
    published = teal.as_published(recipe, inputs)
    name = "layers.1.mlp.down_proj"
    t = teal.signed_threshold(inputs.rows(name), 0.5)
    assert torch.equal(published.thresholds[name], torch.full((52,), t))
    assert not torch.equal(published.thresholds[name], recipe.thresholds[name])
    with pytest.raises(BadInput, match="magnitude alone"):
        teal.as_published(fit(llama, plans.r_sparse(shapes, 0.5), inputs), inputs)


def test_cats_keeps_what_the_gate_says_and_reads_its_share(llama, inputs, batches):
    mlps = gated_mlps(llama)
    densities = dict.fromkeys((m.name for m in mlps), 0.4)
    levels = cats.thresholds(llama, inputs, densities)
    with cats.cats(llama, levels, sparse_from=0.0) as found:
        mlp = llama.model.layers[1].mlp
        x = torch.randn(2, 7, 36)
        a = silu(mlp.gate_proj(x))
        kept = torch.where(a.abs() > levels[mlps[1].name], a, 0)
        torch.testing.assert_close(mlp(x), mlp.down_proj(kept * mlp.up_proj(x)))
        found.reading.read = found.reading.seen = 0
        for ids in batches:
            logits(llama, ids)
    # The very tokens that it was calibrated on, though what blocks get differs a little.
    assert found.reading.share == pytest.approx(0.4, abs=0.03)
    assert all(type(module(llama, m.name).act_fn).__name__ == "SiLUActivation" for m in mlps)


def test_prompts_are_dense_and_steps_are_gated(llama, inputs, batches):
    """The first half of a sequence is the dense model's; one token alone is gated."""
    ids = batches[0]
    levels = dict.fromkeys((m.name for m in gated_mlps(llama)), 0.02)
    dense = logits(llama, ids)
    for context in (
        cats.cats(llama, levels, sparse_from=0.5),
        relu.relufied(llama, sparse_from=0.5),
    ):
        with context:
            half = logits(llama, ids)
        torch.testing.assert_close(half[:, :8], dense[:, :8])
        assert (half[:, 8:] - dense[:, 8:]).abs().amax(-1).gt(1e-4).all()
    with cats.cats(llama, levels):
        torch.testing.assert_close(logits(llama, ids), dense)
        assert not torch.allclose(logits(llama, ids[:, :1]), dense[:, :1], atol=1e-4)
    torch.testing.assert_close(logits(llama, ids), dense)


def test_the_budget_of_neurons_is_exact_or_refused(llama, shapes):
    mlps = gated_mlps(llama)
    size = {name: d_out * d_in for name, (d_out, d_in) in shapes.items()}
    for roles in (("up", "down"), ("gate", "up", "down")):
        share = gated_mlp.neurons(mlps, shapes, 0.7, skipped=roles)
        skipped = {getattr(m, role) for m in mlps for role in roles}
        read = sum(s * (share if name in skipped else 1) for name, s in size.items())
        assert read / sum(size.values()) == pytest.approx(0.7, abs=1e-12)
    with pytest.raises(BadInput, match="never skipped"):
        gated_mlp.neurons(mlps, shapes, 0.3, skipped=("up", "down"))


def test_griffin_takes_the_neurons_that_its_prompt_used_most():
    z = torch.tensor([[[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    expected = torch.tensor([[0.6, (0.8**2 + 1) ** 0.5, 0.0]])
    torch.testing.assert_close(griffin.statistic(z), expected)
    padded = torch.cat([torch.full((1, 2, 3), 9.0), z], 1)
    real = torch.tensor([[False, False, True, True, True]])
    torch.testing.assert_close(griffin.statistic(padded, real), expected)


def test_griffin_s_selection_modes(generator):
    scores = torch.rand(3, 40, generator=generator)
    top = scores >= scores.sort(descending=True).values[:, 9:10]
    assert torch.equal(griffin.chosen(scores, 10, "topk"), top)
    five = scores >= scores.sort(descending=True).values[:, 4:5]
    static = torch.rand(40, generator=generator)
    for mode in ("topk", "sample", "topk-sample", "random", "magnitude"):
        mask = griffin.chosen(scores, 10, mode, torch.Generator().manual_seed(7), static)
        assert (mask.sum(1) == 10).all()
        if mode == "topk-sample":
            assert (mask & five).sum() == 15
            assert not torch.equal(mask, top)
        if mode == "magnitude":
            assert torch.equal(mask[0], static >= static.sort(descending=True).values[9])
    odds = torch.tensor([[8.0, 4.0, 2.0, 1.0, 1.0]])
    drawn = torch.Generator().manual_seed(0)
    often = sum(griffin.chosen(odds, 1, "sample", drawn).float() for _ in range(2000)) / 2000
    torch.testing.assert_close(often, odds / 16, atol=0.04, rtol=0)
    evenly = sum(griffin.chosen(odds, 1, "random", drawn).float() for _ in range(2000)) / 2000
    torch.testing.assert_close(evenly, torch.full_like(odds, 0.2), atol=0.04, rtol=0)


def test_griffin_serves_each_sequence_by_its_own_prompt(llama, batches):
    ids = batches[0]
    assert len(ids) == 2
    counts = griffin.whole_counts({m.name: m.d_mlp for m in gated_mlps(llama)}, 0.3)
    assert sum(counts.values()) == int(3 * 52 * 0.3)
    dense = logits(llama, ids)
    with griffin.griffin(llama, counts, sparse_from=0.5) as state:
        both = logits(llama, ids)
        masks = dict(state.masks)
        alone = torch.cat([logits(llama, one[None]) for one in ids])
    torch.testing.assert_close(both, alone)
    torch.testing.assert_close(both[:, :8], dense[:, :8])
    assert not torch.allclose(both[:, 9:], dense[:, 9:], atol=1e-3)
    assert any(not torch.equal(m[0], m[1]) for m in masks.values())
    assert all((m.sum(1) == counts[name]).all() for name, m in masks.items())


def test_griffin_generates_with_the_prompt_s_neurons_and_padding_says_nothing(llama, batches):
    ids = batches[0][:1, :9]
    counts = dict.fromkeys((m.name for m in gated_mlps(llama)), 20)
    padded = torch.cat([torch.zeros(1, 3, dtype=ids.dtype), ids], 1)
    mask = (padded > 0).long()
    length = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    with griffin.griffin(llama, counts) as state:
        plain = llama.generate(ids, attention_mask=torch.ones_like(ids), **length)
        before = dict(state.masks)
        other = llama.generate(padded, attention_mask=mask, **length)
        assert all(torch.equal(before[name], state.masks[name]) for name in counts)
        assert torch.equal(plain[:, 9:], other[:, 12:])
    with griffin.griffin(llama, counts), pytest.raises(BadInput, match="at least two tokens"):
        logits(llama, ids[:, :1])
    with pytest.raises(BadInput, match="prompt"), griffin.griffin(llama, counts, sparse_from=0.0):
        pass


def test_a_thresholded_gate_stands_inside_gated_linears(llama, inputs, shapes, batches):
    """CATS for up and down, TEAL for the rest: both are in force, and both are gone after."""
    mlps = gated_mlps(llama)
    rest = [name for name in shapes if not name.endswith(("up_proj", "down_proj"))]
    recipe = fit(llama, plans.teal(rest, 0.5), inputs)
    levels = cats.thresholds(llama, inputs, dict.fromkeys((m.name for m in mlps), 0.5))
    ids, dense = batches[0], logits(llama, batches[0])
    with sparsified(llama, recipe, sparse_from=0.0):
        first = logits(llama, ids)
        with cats.cats(llama, levels, sparse_from=0.0):
            second = logits(llama, ids)
    assert not torch.allclose(first, dense, atol=1e-4)
    assert not torch.allclose(first, second, atol=1e-4)
    assert torch.equal(logits(llama, ids), dense)


def test_settled_cats_reads_its_share_of_its_own_activations(llama, inputs, shapes, batches):
    """Beside gated linears, and only of the tokens after a prompt, which are others."""
    mlps = gated_mlps(llama)
    skipped = {name for mlp in mlps for name in (mlp.up, mlp.down)}
    rest = [name for name in shapes if name not in skipped]
    recipe = fit(llama, plans.teal(rest, 0.7), inputs)
    densities = dict.fromkeys((mlp.name for mlp in mlps), 0.3)
    levels = cats.thresholds(llama, inputs, densities)

    def off(levels) -> float:
        with cats.cats(llama, levels, sparse_from=0.5) as found:
            for ids in batches:
                logits(llama, ids)
        return abs(found.reading.share - 0.3)

    with sparsified(llama, recipe, sparse_from=0.5, layout="shared"):
        again = levels
        for _ in range(4):
            again = cats.settled(llama, again, densities, batches, sparse_from=0.5)
        assert off(again) < min(0.01, off(levels) / 2)
        few = cats.settled(llama, levels, densities, batches, sparse_from=0.5, keep=5)
    assert few != again
    # Dense tokens would say something else: the quantile is of those that are gated alone.
    with cats.cats(llama, levels, sparse_from=0.5):
        gates = [llama.model.layers[i].mlp.gate_proj for i in range(2)]
        seen: list[torch.Tensor] = []
        handle = gates[1].register_forward_hook(lambda _, __, y: seen.append(silu(y)[:, 8:].abs()))
        for ids in batches:
            logits(llama, ids)
        handle.remove()
    once = cats.settled(llama, levels, densities, batches, sparse_from=0.5)
    pool = torch.cat([a.flatten() for a in seen])
    assert float((pool > once[mlps[1].name]).float().mean()) == pytest.approx(
        0.3, abs=1 / len(pool)
    )


def test_relu_in_place_of_the_activation(llama, batches):
    mlp = llama.model.layers[0].mlp
    x = torch.randn(1, 5, 36)
    with relu.relufied(llama, sparse_from=0.0) as found:
        torch.testing.assert_close(
            mlp(x), mlp.down_proj(mlp.gate_proj(x).clamp_min(0) * mlp.up_proj(x))
        )
        assert found.reading.share == int((mlp.gate_proj(x) > 0).sum()) / 260


def test_more_phases_come_closer_and_none_of_them_is_teal(llama, inputs, generator):
    x = torch.randn(300, 21, generator=generator) + 0.3
    errors = []
    for count in (1, 2, 4, 16):
        found = relu.phases(x, 0.6, count)
        y = relu.multi_phase(x, found)
        assert float((x != y).float().mean()) == pytest.approx(0.6, abs=0.01)
        assert torch.equal(y[x.abs() > found.threshold], x[x.abs() > found.threshold])
        # The best constants of these phases: their means.
        assert float((x - y).mean()) == pytest.approx(0, abs=1e-6)
        errors.append(float((x - y).square().sum()))
    zeroed = float(torch.where(x.abs() > relu.phases(x, 0.6, 1).threshold, 0, x).square().sum())
    assert zeroed > errors[0] > 2 * errors[1] > 4 * errors[2] > 8 * errors[3]
    name = "layers.2.self_attn.q_proj"
    seen = []
    hooks = [(module(llama, name), "post", lambda _, args, __: seen.append(args[0]))]
    found = relu.phases(inputs.rows(name), 0.5, 2)
    with relu.multi_phased(llama, {name: found}, sparse_from=0.5), hooked(hooks):
        logits(llama, torch.arange(3, 20)[None])
    assert len(seen[0][0, 8:].unique()) < len(seen[0][0, :8].unique())


COARSE = greedy.Options(step=0.6)


class TestGreedy:
    def test_plans_read_their_share_in_every_block(self, llama, inputs, shapes, batches):
        paths = greedy.paths(llama, inputs, batches[:1], 0.7, COARSE)
        for sparsity in (0.33, 0.5, 0.7):
            plan = greedy.plan(paths, shapes, sparsity)
            assert plan.keys() == shapes.keys()
            for layer in range(3):
                here = {n: s for n, s in shapes.items() if n.startswith(f"layers.{layer}.")}
                assert read_share(plan, here) == pytest.approx(1 - sparsity, abs=1e-6)
        with pytest.raises(BadInput, match="ends before"):
            greedy.plan(paths, shapes, 0.95)

    def test_the_first_step_is_the_one_of_least_error(self, llama, inputs, batches):
        """By hand: one linear at a time, a block alone, the error over the last quarter."""
        (path, *_) = greedy.paths(llama, inputs, batches[:1], 0.01)
        block, chosen = llama.model.layers[0], linears(llama, "layers.0.*")
        with torch.no_grad():
            recording = record(llama, batches[:1])
            work = greedy._Block(
                block, chosen, recording.resid, recording.calls[0], inputs, greedy.Options()
            )
        errors = {}
        for name, linear in chosen.items():
            by = 0.05 * 36 * 36 / linear.weight.numel()
            t = inputs.quantile(name, by)

            def zero(_, args, kwargs, t=t):
                x = args[0].clone()
                x[:, 8:] = torch.where(x[:, 8:].abs() > t, x[:, 8:], 0)
                return (x,), kwargs

            outputs = []
            hooks = [(block, "post", lambda _, __, out, to=outputs: to.append(out))]
            with hooked(hooks):
                logits(llama, batches[0])
                with hooked([(linear, "pre", zero)]):
                    logits(llama, batches[0])
            change = (outputs[0] - outputs[1])[:, -4:]
            errors[name] = float(change.square().sum(1).sqrt().mean())
            with torch.no_grad():
                assert work.error({name: by}) == pytest.approx(errors[name], rel=1e-4)
        best = min(errors, key=lambda name: errors[name])
        assert path[0] == (best, 0.05 * 36 * 36 / chosen[best].weight.numel())

    def test_lazily_it_takes_the_same_path_here(self, llama, inputs, batches):
        plain = greedy.paths(llama, inputs, batches[:1], 0.4, COARSE)
        lazy = greedy.paths(llama, inputs, batches[:1], 0.4, COARSE._replace(lazy=True))
        same = [
            a == b for p, q in zip(plain, lazy, strict=True) for a, b in zip(p, q, strict=False)
        ]
        assert sum(same) > 0.8 * len(same)

    def test_a_linear_that_reaches_everything_stops(self, llama, inputs, batches, shapes):
        paths = greedy.paths(llama, inputs, batches[:1], 1.0, COARSE._replace(step=2.0))
        plan = greedy.plan(paths, shapes, 1)
        assert all(setting.sparsity == pytest.approx(1) for setting in plan.values())
