"""Searches over plans: costs, the knapsack, trials from a block on, evolution, journals, forks."""

import itertools
import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from bridge.decode.inputs import calibrate
from bridge.decode.plan import Setting, read_share
from bridge.decode.recipe import fit
from bridge.decode.sparsified import sparsified
from bridge.search.costs import costs
from bridge.search.evolution import Evolution
from bridge.search.gates import Gates
from bridge.search.journal import Journal, key
from bridge.search.judge import Judge
from bridge.search.knapsack import Candidate, knapsack, lower_hull
from bridge.search.objective import Objective
from bridge.search.parallel import mapped
from bridge.search.pool import POOLED, pooled
from bridge.search.refine import groups, refine, without_factors
from bridge.search.sensitivity import Seen, sensitivity
from bridge.sites import linears
from mech.errors import BadInput


def test_gradients_are_those_of_the_loss_of_sampled_labels(llama, batches):
    """A small step against g in one linear's output lowers that loss by |g|² of it."""
    seen = sensitivity(llama, batches[:1], seed=4)
    name = "layers.1.mlp.down_proj"
    ids, linear = batches[0], linears(llama)[name]
    generator = torch.Generator().manual_seed(4)

    @torch.no_grad()
    def loss(step: float) -> float:
        def after(_, __, y):
            return y - step * seen[name].g.view_as(y)

        handle = linear.register_forward_hook(after)
        logits = llama(ids, use_cache=False).logits.flatten(0, 1).double()
        handle.remove()
        return float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))

    with torch.no_grad():
        p = llama(ids, use_cache=False).logits.flatten(0, 1).float().softmax(-1)
    labels = torch.multinomial(p, 1, generator=generator)[:, 0]
    slope = (loss(1e-2) - loss(-1e-2)) / 2e-2
    assert slope == pytest.approx(-float(seen[name].g.square().sum()), rel=1e-3)
    read = calibrate(llama, batches[:1])
    assert all(torch.equal(seen[n].x, read.rows(n)) for n in seen)
    assert seen[name].x.data_ptr() != seen["layers.1.mlp.up_proj"].x.data_ptr()
    shared = seen["layers.1.mlp.gate_proj"].x.data_ptr()
    assert seen["layers.1.mlp.up_proj"].x.data_ptr() == shared
    assert linear.weight.grad is None


def test_the_cost_of_a_setting_is_that_of_its_error(generator):
    """Every candidate against the definition: factors of some tokens, cost on the others."""
    w = torch.randn(7, 12, generator=generator)
    x = torch.randn(80, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    seen = Seen(x, torch.randn(80, 7, generator=generator))
    rules = ("magnitude", "column")
    found = costs({"a": w}, {"a": seen}, shares=(0.25, 0.5, 1.0), ranks=(0.3, 0.6), rules=rules)[
        "a"
    ]
    assert {c.setting.rule for c in found} == {"magnitude", "column"}
    assert sorted({c.setting.rank(7, 12) for c in found}) == [0, 1, 2]
    for candidate in found:
        share, setting = candidate.setting.channels(7, 12), candidate.setting
        scale = torch.ones(12) if setting.rule == "magnitude" else w.norm(dim=0)
        size = x.abs() * scale
        levels = size.flatten().sort().values
        level = -1 if share >= 1 else levels[round((1 - share) * (len(levels) - 1))]
        rest = x.masked_fill(size > level, 0)
        rank = setting.rank(7, 12)
        u = torch.linalg.svd(rest[:20] @ w.mT).Vh[:rank].mT
        e = (rest @ w.mT)[20:]
        wanted = Seen(x[20:], seen.g[20:]).cost(e - e @ u @ u.mT)
        assert candidate.cost == pytest.approx(wanted, rel=1e-3, abs=1e-6)
        assert candidate.share == pytest.approx(1 - setting.sparsity)


@pytest.mark.parametrize("tokens", [3, 1024])
def test_a_pool_is_of_all_channels_and_all_tokens(generator, tokens):
    """576 channels of their own sizes, tokens of theirs: a step of four would meet a quarter."""
    channel = torch.rand(576, generator=generator).exp2() * torch.tensor([8.0, 1, 1, 1]).repeat(144)
    token = torch.linspace(1, 4, tokens)[:, None]
    size = torch.rand(tokens, 576, generator=generator) * channel * token
    pool = pooled(size)
    assert len(pool) == min(size.numel(), POOLED)
    for share in (0.1, 0.5, 0.9):
        below = float((size <= pool[round(share * len(pool)) - 1]).double().mean())
        assert below == pytest.approx(share, abs=0.005 if tokens > 3 else 1e-9 + 1 / size.numel())


SHAPES = {"a": (3, 5), "b": (7, 2), "c": (9, 11)}
points = st.lists(st.tuples(st.floats(0.05, 0.95), st.floats(0.01, 5)), min_size=1, max_size=5).map(
    lambda found: [(0.02, 9.0), *found, (1.0, 0.0)]
)


def candidates(found) -> list[Candidate]:
    return [Candidate(Setting(1 - share), share, cost) for share, cost in found]


@given(st.tuples(points, points, points), st.floats(0.05, 0.9))
def test_a_knapsack_spends_all_and_no_vertices_do_better(found, sparsity):
    """Against every combination of candidates that reads no more, and its bytes to the last."""
    given_ = {name: candidates(part) for name, part in zip(SHAPES, found, strict=True)}
    plan = knapsack(given_, SHAPES, sparsity)
    assert read_share(plan, SHAPES) == pytest.approx(1 - sparsity, abs=1e-9)
    sizes = {name: a * b for name, (a, b) in SHAPES.items()}

    def hull_cost(name):
        hull = lower_hull(given_[name])
        share = 1 - plan[name].sparsity
        return np.interp(share, [c.share for c in hull], [c.cost for c in hull])

    best = sum(hull_cost(name) for name in SHAPES)
    for choice in itertools.product(*given_.values()):
        spent = sum(c.share * n for c, n in zip(choice, sizes.values(), strict=True))
        if spent <= (1 - sparsity) * sum(sizes.values()):
            assert best <= sum(c.cost for c in choice) + 1e-6


def test_the_last_segment_is_taken_in_part_in_the_setting_it_leads_to():
    """By hand: 0.2 of 16 numbers are spent, 0.1 is left of a segment of 0.4."""
    far = Setting(0.4, 0.9, "column", "moment")
    given_ = {"c": [Candidate(Setting(0.8), 0.2, 4.0), Candidate(far, 0.6, 1.0)]}
    plan = knapsack(given_, {"c": (4, 4)}, 0.7)
    assert plan["c"].sparsity == pytest.approx(0.7)
    assert plan["c"] == replace(far, sparsity=plan["c"].sparsity)


def test_a_weight_moves_bytes_to_its_linear_and_a_budget_below_all_is_refused():
    curve = candidates([(0.1, 4.0), (0.4, 1.0), (1.0, 0.0)])
    given_ = dict.fromkeys(SHAPES, curve)
    plain = knapsack(given_, SHAPES, 0.65)
    heavy = knapsack(given_, SHAPES, 0.65, {"c": 10.0})
    assert heavy["c"].sparsity < plain["c"].sparsity
    with pytest.raises(BadInput, match="sparsest candidates"):
        knapsack(given_, SHAPES, 0.95)


@pytest.mark.parametrize("kind", [Setting(0.4), Setting(0.5, 0.8, "column", "moment")])
def test_a_trial_is_the_recipe_of_its_plan(llama, batches, kind: Setting):
    inputs = calibrate(llama, batches)
    plan: dict[str, Setting] = dict.fromkeys(linears(llama), kind)
    objective = Objective(llama, batches, Gates(llama, inputs, plan))
    found = objective.losses(plan)
    with sparsified(llama, fit(llama, plan, inputs), sparse_from=0.0), torch.no_grad():
        logits = [llama(ids, use_cache=False).logits[:, :-1] for ids in batches]
    wanted = torch.cat(
        [
            torch.nn.functional.cross_entropy(
                out.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
            )
            for out, ids in zip(logits, batches, strict=True)
        ]
    )
    assert torch.allclose(found.float(), wanted, atol=1e-5)
    assert "forward" not in vars(linears(llama)["layers.0.mlp.up_proj"])


def test_a_trial_from_a_block_on_is_the_whole_trial(model, batches):
    inputs = calibrate(model, batches)
    names = linears(model)
    plan: dict[str, Setting] = dict.fromkeys(names, Setting(0.5, 0.9))
    objective = Objective(model, batches, Gates(model, inputs, plan))
    other = {**plan, **{n: Setting(0.7) for n in names if n.startswith("layers.2.")}}
    whole = objective.losses(other)
    blocks = []
    with objective.after(2, plan):
        handles = [
            block.register_forward_pre_hook(lambda *_: blocks.append(1))
            for block in objective.blocks[2:]
        ]
        # The gates of fixed blocks do not run again: whatever is said of them is not heard.
        again = objective.losses({n: s for n, s in other.items() if n.startswith("layers.2.")})
        for handle in handles:
            handle.remove()
    assert torch.equal(whole, again)
    assert len(blocks) == len(batches)
    assert torch.equal(objective.losses(other), whole)  # nothing stays fixed outside


def test_settled_thresholds_read_the_share_that_they_are_set_for(llama, batches):
    """On the gated model's own inputs, which are not the dense model's."""
    plan = dict.fromkeys(linears(llama), Setting(0.8))
    gates = Gates(llama, calibrate(llama, batches), plan)
    settled = gates.settled(plan, batches, keep=2048).settled(plan, batches, keep=2048)

    def off(g):
        recipe = fit(llama, plan, g.inputs)
        with (
            sparsified(llama, recipe, sparse_from=0.0, count=True) as decoding,
            torch.no_grad(),
        ):
            for ids in batches:
                llama(ids, use_cache=False)
            return max(abs(gated.read - 0.2) for gated in decoding.gated.values())

    assert off(settled) < off(gates) / 2


def test_evolution_finds_a_minimum_and_leaves_other_groups_alone():
    aim = np.array([1.3, 0.8, 0.6, 1.3, 0.7])
    calls = []

    def fitness(first, best):
        calls.append((first, best.copy()))

        def losses(vectors):
            for vector in vectors:
                outside = np.delete(vector, np.s_[first : first + 3])
                assert np.array_equal(outside, np.delete(best, np.s_[first : first + 3]))
                assert (vector >= 0).all()
                assert (vector <= 1).all()
            return [float(((v - aim) ** 2).sum()) for v in vectors]

        return losses

    search = Evolution(group=3, generations=30, seed=2)
    best, loss = search.search(np.full(5, 0.9), fitness)
    assert [first for first, _ in calls] == [0, 3]
    assert loss == pytest.approx(((best - aim) ** 2).sum())
    assert np.abs(best - aim.clip(max=1)).max() < 0.05
    assert best[0] == best[3] == 1.0  # the corner is met exactly: no rank there
    again, _ = search.search(np.full(5, 0.9), fitness)
    assert np.array_equal(best, again)
    with pytest.raises(BadInput, match="population 3"):
        Evolution(population=3)


@pytest.mark.parametrize(("crossover", "crossed"), [(0.0, 1.0), (0.5, 4.0), (0.9, 6.4)])
def test_a_child_is_its_parent_with_a_mutant_s_numbers(crossover, crossed):
    """x_a + p_m (x_b - x_c), a, b, c three others; one number at least, the rest with p_c."""
    rng = np.random.default_rng(5)
    parents = rng.uniform(0.4, 0.6, (5, 7))
    search = Evolution(mutation=0.3, crossover=crossover)
    triples = list(itertools.permutations([0, 1, 3, 4], 3))
    mutants = np.stack([parents[a] + 0.3 * (parents[b] - parents[c]) for a, b, c in triples])
    counts, drawn = [], set()
    for _ in range(600):
        child = search._child(parents, 2, 7, rng)
        other = child != parents[2]
        (fits,) = np.nonzero(np.isclose(mutants, child)[:, other].all(axis=1))
        assert len(fits) == 1
        counts.append(other.sum())
        drawn.add(int(fits[0]))
    assert min(counts) >= 1
    assert np.mean(counts) == pytest.approx(crossed, abs=0.2)
    assert len(drawn) == len(triples)


def test_evolution_never_ends_worse_than_it_starts():
    """Where every change is worse, the start is kept."""
    start = np.full(6, 0.75)
    best, loss = Evolution(group=4).search(
        start, lambda *_: lambda vs: [float(np.abs(v - start).sum()) for v in vs]
    )
    assert np.array_equal(best, start)
    assert loss == 0.0


def test_a_journal_keeps_values_and_drops_what_a_kill_cut_off(tmp_path):
    file = tmp_path / "deep" / "journal.jsonl"
    Journal(file, {"seed": 1}).add({"a": 0.1, "b": 1e300})
    with file.open("a") as handle:
        handle.write('{"c": 0.')
    again = Journal(file, {"seed": 1})
    assert again.values == {"a": 0.1, "b": 1e300}
    again.add({"c": 0.5})
    assert Journal(file, {"seed": 1}).values["c"] == 0.5
    assert [json.loads(line) for line in file.read_text().splitlines()][-1] == {"c": 0.5}
    with pytest.raises(BadInput, match="another search"):
        Journal(file, {"seed": 2})
    file.write_text(file.read_text().replace('{"c"', "{c"))
    with pytest.raises(BadInput, match="damaged"):
        Journal(file, {"seed": 1})
    assert Journal(None, {}).values == {}
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1}) != key({"a": 2, "b": 1})


SCRIPT = """
    import os, signal
    from bridge.search.parallel import mapped
    from mech.errors import BadInput
    parent = os.getpid()
    def double(x):
        assert os.getpid() != parent
        if x == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        if x == 14:
            raise ValueError("fourteen")
        return 2.0 * x
    print(mapped(double, [1, 2, 3, 4, 5, 6.5, 7], 3))
    for bad in ([1, 2, 13, 4], [1, 14, 3]):
        try:
            mapped(double, bad, 2)
        except BadInput as error:
            print(error)
"""


def test_processes_give_the_same_numbers_in_order_and_say_when_one_is_gone():
    """In a process of its own: pytest has threads, and a fork of it would not be a clean one."""
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    numbers, *refused = done.stdout.splitlines()
    assert numbers == "[2.0, 4.0, 6.0, 8.0, 10.0, 13.0, 14.0]"
    assert len(refused) == 2
    assert all("ended early" in line for line in refused)


def test_one_process_needs_no_fork():
    assert mapped(lambda x: x + 1.0, [1, 2], 1) == [2.0, 3.0]
    assert mapped(lambda x: x, [], 2) == []


NAMES = [f"layers.{b}.{kind}" for b in range(5) for kind in ("attn.q", "mlp.up")]


def test_groups_hold_every_linear_twice_by_kind_and_by_depth():
    found = groups(NAMES, bands=2)
    assert found["attn.q"] == NAMES[::2]
    assert found["band 1 of 2"] == NAMES[:6]
    assert found["band 2 of 2"] == NAMES[6:]
    assert sorted(n for names in found.values() for n in names) == sorted(NAMES * 2)


def test_local_search_finds_what_the_costs_do_not_know_and_spends_the_same():
    """Costs say that all linears are alike; the loss counts the second kind ten times."""
    curve = [Candidate(Setting(1 - s), s, (1 - s) ** 3) for s in np.linspace(0.05, 1, 20).tolist()]
    curve += [Candidate(Setting(0.3, 0.9, factors="moment"), 0.7, 0.001)]
    shapes = dict.fromkeys(NAMES, (6, 4))
    asked = []

    def losses(plans):
        asked.extend(plans)
        return [
            sum((10 if "up" in n else 1) * s.sparsity**3 for n, s in plan.items()) for plan in plans
        ]

    plain = without_factors(dict.fromkeys(NAMES, curve))
    assert all(c.setting.alpha == 1 for cs in plain.values() for c in cs)
    assert len(plain[NAMES[0]]) == 20
    start = knapsack(plain, shapes, 0.5)
    plan, loss = refine(plain, shapes, 0.5, losses, rounds=3)
    assert loss < 0.6 * losses([start])[0]
    assert loss == losses([plan])[0] == min(losses(asked[:]))
    assert plan["layers.0.mlp.up"].sparsity < plan["layers.0.attn.q"].sparsity
    assert all(read_share(one, shapes) == pytest.approx(0.5) for one in asked)
    same, first = refine(plain, shapes, 0.5, losses, rounds=0)
    assert same == start
    assert first == losses([start])[0]


def test_a_judge_measures_what_reads_the_same_once(llama, batches):
    plan = dict.fromkeys(linears(llama), Setting(0.5))
    gates = Gates(llama, calibrate(llama, batches), plan)
    objective, journal = Objective(llama, batches, gates), Journal(None, {})
    judge = Judge(objective, journal)
    # No rank fits into 1% of half of these matrices: the same as no low-rank term at all.
    other = dict.fromkeys(plan, Setting(0.5, 0.99))
    third = dict.fromkeys(plan, Setting(0.6))
    found = judge([plan, other, third])
    assert journal.measured == 2
    assert found == [objective(plan), objective(plan), objective(third)]
    assert judge([third]) == [found[2]]
    assert journal.measured == 2
