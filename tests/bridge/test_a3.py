"""A3 against a plain float64 restatement of its formulas over the model's whole width."""

import itertools
import time
from typing import NamedTuple

import numpy as np
import pytest
import torch

from bridge.component import Component
from bridge.methods.a3 import A3
from bridge.methods.a3_forms import best_units, joint, unit_scores, units
from bridge.sliced import Sliced
from mech.errors import BadInput


class Attention(NamedTuple):
    """An attention of linears alone, and what reads it: x [tokens, d_model], one pattern a head."""

    component: Component
    x: torch.Tensor
    pattern: torch.Tensor


def attention(generator, *, d_model=13, d_head=6, kv=2, group=1, rotary=None, tokens=40):
    n_heads = kv * group
    widths = {"q": n_heads * d_head, "k": kv * d_head, "v": kv * d_head}
    linears = {role: torch.nn.Linear(d_model, width, bias=False) for role, width in widths.items()}
    linears["o"] = torch.nn.Linear(n_heads * d_head, d_model, bias=False)
    for linear in linears.values():
        linear.double().weight.requires_grad_(False).normal_(generator=generator)
    names = {role: f"layers.0.self_attn.{role}_proj" for role in linears}
    x = torch.randn(tokens, d_model, generator=generator, dtype=torch.float64)
    x = x * torch.logspace(-1, 1, d_model, dtype=torch.float64)
    logits = torch.randn(n_heads, tokens, tokens, generator=generator, dtype=torch.float64)
    pattern = logits.tril().masked_fill(logits.tril() == 0, -torch.inf).softmax(-1)
    component = Component(
        "attention", 0, torch.nn.ModuleDict(linears), linears, names, n_heads, kv, d_head, rotary
    )
    return Attention(component, x, pattern)


def run(made: Attention, a3: A3):
    """What A3 makes of it: the linears are called as an attention calls them."""
    component, x, pattern = made
    with a3.watch(component) as state:
        for role in "qk":
            component.linears[role](x)
        values = component.linears["v"](x).view(len(x), component.n_kv_heads, -1)
        group = component.n_heads // component.n_kv_heads
        z = torch.einsum("hst,thd->shd", pattern, values.repeat_interleave(group, 1))
        component.linears["o"](z.flatten(1))
    return {role: matrix(op).numpy() for role, op in a3(component, state).items()}


def matrix(operator) -> torch.Tensor:
    """Of one without a bias."""
    assert isinstance(operator, Sliced)
    return operator.dense()


def heads(weight, d_head: int) -> np.ndarray:
    """[head, d_model, d_head], as the paper multiplies from the right."""
    return weight.reshape(-1, d_head, weight.shape[-1]).swapaxes(1, 2)


def root(R: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(R)
    return (vectors * np.sqrt(values)) @ vectors.T


def truncated(matrix: np.ndarray, rank: int):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank], s[:rank, None] * vt[:rank]


def qk_plainly(made: Attention, rank: int) -> list[np.ndarray]:
    """W̃_qk of every head: SVD_r of the stacked R^½ W_q W_kᵀ R^½, undone by R^-½."""
    component, x, _ = made
    half = root((x.T @ x).numpy() / len(x))
    back, group = np.linalg.inv(half), component.n_heads // component.n_kv_heads
    W_Q, W_K = (heads(component.linears[r].weight.numpy(), component.d_head) for r in "qk")
    found = []
    for kv in range(component.n_kv_heads):
        own = W_Q[kv * group : (kv + 1) * group]
        left, right = truncated(np.concatenate([half @ q @ W_K[kv].T @ half for q in own]), rank)
        found += [back @ part @ right @ back for part in np.split(left, group)]
    return found


def ov_plainly(made: Attention, rank: int) -> list[np.ndarray]:
    """W̃_v W̃_o of every head: with R_p of its own mixed inputs, or jointly with R."""
    component, x, pattern = made
    group, d_head = component.n_heads // component.n_kv_heads, component.d_head
    W_V = heads(component.linears["v"].weight.numpy(), d_head)
    W_O = component.linears["o"].weight.numpy().T.reshape(component.n_heads, d_head, -1)
    found = []
    for kv in range(component.n_kv_heads):
        read = (pattern[kv] @ x if group == 1 else x).numpy()
        half = root(read.T @ read / len(read))
        own = W_O[kv * group : (kv + 1) * group]
        left, right = truncated(half @ W_V[kv] @ np.concatenate(own, axis=1), rank)
        found += np.split(np.linalg.inv(half) @ left @ right, group, axis=1)
    return found


def products(made: Attention, weights: dict, first: str, second: str) -> list[np.ndarray]:
    component = made.component
    group, d_head = component.n_heads // component.n_kv_heads, component.d_head
    left = heads(weights[first], d_head)
    if second == "o":
        right = weights["o"].T.reshape(component.n_heads, d_head, -1)
        return [left[h // group] @ right[h] for h in range(component.n_heads)]
    right = heads(weights[second], d_head)
    return [left[h] @ right[h // group].T for h in range(component.n_heads)]


SHAPES = [
    {"d_model": 13, "d_head": 6, "kv": 3, "group": 1},
    {"d_model": 11, "d_head": 5, "kv": 2, "group": 3},
    {"d_model": 29, "d_head": 7, "kv": 1, "group": 2},
]


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
@pytest.mark.parametrize("compression", [0.3, 0.55])
def test_qk_and_ov_restated(sizes, compression, generator, measured):
    made = attention(generator, **sizes)
    weights = run(made, A3(compression=compression, parts=("qk", "ov")))
    rank = int((1 - compression) * sizes["d_head"] + 1e-9)
    for first, second, plainly in (("q", "k", qk_plainly), ("v", "o", ov_plainly)):
        expected = plainly(made, rank)
        found = products(made, weights, first, second)
        worst = max(
            np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, expected, strict=True)
        )
        measured(f"A3 {first}{second} against the plain formulas", f"{worst:.1e}", "1e-6")
        assert worst < 1e-6


@pytest.mark.parametrize("rotary", ["half", "adjacent"])
@pytest.mark.parametrize("group", [1, 3])
def test_rotary_pairs_restated(rotary, group, generator):
    made = attention(generator, d_model=17, d_head=10, kv=2, group=group, rotary=rotary)
    x, linears = made.x.numpy(), made.component.linears
    half = root(x.T @ x / len(x))
    L, R = (np.stack([half @ W for W in heads(linears[r].weight.numpy(), 10)]) for r in ("q", "k"))
    pairs = [(i, i + 5) if rotary == "half" else (2 * i, 2 * i + 1) for i in range(5)]
    weights = run(made, A3(compression=0.35, parts=("qk",)))
    for kv in range(2):
        score = [
            sum(
                (L[kv * group + h, :, i] ** 2).sum() * (R[kv, :, i] ** 2).sum()
                for i in pair
                for h in range(group)
            )
            for pair in pairs
        ]
        # 65% of 10 coordinates are 6: three pairs.
        kept = sorted(itertools.chain(*(pairs[j] for j in np.argsort(score)[-3:])))
        gone = sorted(set(range(10)) - set(kept))
        for role, owners in (("k", [kv]), ("q", range(kv * group, (kv + 1) * group))):
            for head in owners:
                own = weights[role].reshape(-1, 10, 17)[head]
                dense = linears[role].weight.numpy().reshape(-1, 10, 17)[head]
                np.testing.assert_array_equal(own[kept], dense[kept])
                np.testing.assert_array_equal(own[gone], 0)


def mlp(generator, d_model=9, d_mlp=21, bias=False) -> Component:
    linears = {
        "gate": torch.nn.Linear(d_model, d_mlp, bias=bias),
        "up": torch.nn.Linear(d_model, d_mlp, bias=bias),
        "down": torch.nn.Linear(d_mlp, d_model, bias=bias),
    }
    for linear in linears.values():
        linear.double().weight.requires_grad_(False).normal_(generator=generator)
    names = {role: f"layers.0.mlp.{role}_proj" for role in linears}
    return Component("mlp", 0, torch.nn.ModuleDict(linears), linears, names, 0, 0, 0, None)


def test_neurons_restated(generator):
    component = mlp(generator)
    x = torch.randn(50, 9, generator=generator, dtype=torch.float64)
    a3 = A3(compression=0.4)
    with a3.watch(component) as state:
        h = torch.nn.functional.silu(component.linears["gate"](x)) * component.linears["up"](x)
        component.linears["down"](h)
    operators = a3(component, state)
    score = (h**2).mean(0) * (component.linears["down"].weight ** 2).sum(0)
    kept = sorted(score.argsort()[-12:].tolist())  # ⌊0.6 · 21⌋
    for role in ("gate", "up"):
        dense = matrix(operators[role])
        assert dense.abs().sum(1).nonzero().flatten().tolist() == kept
        assert torch.equal(dense[kept], component.linears[role].weight[kept])
    assert matrix(operators["down"]).abs().sum(0).nonzero().flatten().tolist() == kept


def test_joint_is_optimal_and_its_error_is_the_tail_of_the_spectrum(generator):
    a, b = (torch.randn(30, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    A, B = a.mT @ a, b.mT @ b
    maps = joint(A, B, 4)

    def error(left, right):
        change = torch.eye(7, dtype=torch.float64) - left @ right.mT
        return float((a @ change @ b.mT).norm())

    best = error(maps.left, maps.right)
    tail = torch.linalg.svdvals(a @ b.mT)[4:7]
    assert best == pytest.approx(float(tail.norm()), rel=1e-9)
    for size in (1e-3, 0.1, 1.0):
        for _ in range(50):
            moved = [
                m + size * torch.randn(m.shape, generator=generator, dtype=torch.float64)
                for m in (maps.left, maps.right)
            ]
            assert error(*moved) >= best
    # Balanced: neither factor is larger than the other.
    torch.testing.assert_close(
        (maps.left.mT @ A @ maps.left).diagonal(), (maps.right.mT @ B @ maps.right).diagonal()
    )


@pytest.mark.parametrize("group", [1, 3])
def test_no_other_values_and_outputs_of_the_rank_write_nearer(group, generator):
    """‖R^½ (W_v W_o - W̃_v W̃_o)‖ of a key head's outputs is the tail of the spectrum, the least."""
    made = attention(generator, d_model=15, d_head=6, kv=2, group=group)
    component, x, pattern = made
    dense = {role: component.linears[role].weight.numpy() for role in "vo"}
    weights = run(made, A3(compression=0.5, parts=("ov",)))
    plain = run(made, A3(compression=0.5, parts=("ov",), metric="weights"))
    rng = np.random.default_rng(0)

    def error(changed: dict, kv: int, half: np.ndarray) -> float:
        own = slice(kv * group, (kv + 1) * group)
        pairs = zip(
            products(made, dense, "v", "o")[own],
            products(made, changed, "v", "o")[own],
            strict=True,
        )
        return float(np.sqrt(sum(np.square(half @ (a - b)).sum() for a, b in pairs)))

    for kv in range(2):
        read = (pattern[kv] @ x if group == 1 else x).numpy()
        half = root(read.T @ read)
        best = error(weights, kv, half)
        whole = np.concatenate(products(made, dense, "v", "o")[kv * group : (kv + 1) * group], 1)
        tail = np.linalg.svd(half @ whole, compute_uv=False)[3:]
        assert best == pytest.approx(np.linalg.norm(tail), rel=1e-8)
        assert error(plain, kv, half) > best
        for size in (1e-3, 1e-1):
            moved = {r: w + size * (w != 0) * rng.normal(size=w.shape) for r, w in weights.items()}
            assert error(moved, kv, half) > best


def test_a_singular_moment_loses_nothing_and_says_so(generator):
    few = attention(generator, d_model=13, d_head=6, kv=2, tokens=3)
    a3 = A3(compression=0.3, parts=("qk",))
    component, x, _ = few
    with a3.watch(component) as state:
        q, k = component.linears["q"](x), component.linears["k"](x)
        component.linears["o"](torch.zeros(1, 12, dtype=torch.float64))
    operators = a3(component, state)
    for head in range(2):
        own = slice(6 * head, 6 * head + 6)
        scores = q[:, own] @ k[:, own].mT
        torch.testing.assert_close(
            operators["q"](x)[:, own] @ operators["k"](x)[:, own].mT, scores, rtol=1e-6, atol=1e-9
        )
    assert "other coordinates" in str(operators["q"].note)
    assert "2 of 2 heads have fewer than 4 directions" in str(operators["q"].note)


def test_no_signal_is_no_nan(generator):
    zero = torch.zeros(2, 5, 5, dtype=torch.float64)
    some = torch.eye(5, dtype=torch.float64).expand(2, 5, 5)
    for first, second in ((zero, some), (some, zero), (zero, zero)):
        maps = joint(first, second, 3)
        assert maps.left.count_nonzero() == maps.right.count_nonzero() == 0
        assert maps.reached.tolist() == [0, 0]


def test_units_of_partial_rotation():
    assert units(7, "half", 4) == [(0, 2), (1, 3), (4,), (5,), (6,)]
    assert units(3, None) == [(0,), (1,), (2,)]
    with pytest.raises(BadInput, match="make no pairs"):
        units(7, "half")
    # A pair counts as two: what it carries a coordinate is compared.
    scores = unit_scores(torch.tensor([3.0, 1, 3, 1, 2, 1]), torch.ones(6), units(6, "half", 4))
    assert scores.tolist() == [6, 2, 2, 1]
    assert best_units(scores, units(6, "half", 4), 3).tolist() == [0, 2, 4]
    assert best_units(scores, units(6, "half", 4), 4).tolist() == [0, 2, 4, 5]


def test_it_is_faster_than_the_plain_loop(generator, measured):
    made = attention(generator, d_model=192, d_head=32, kv=6, tokens=300)
    a3 = A3(compression=0.5, parts=("qk", "ov"))

    def seconds(work) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    def plainly():
        return qk_plainly(made, 16), ov_plainly(made, 16)

    run(made, a3)  # what compiles or loads once
    ours, theirs = zip(
        *((seconds(lambda: run(made, a3)), seconds(plainly)) for _ in range(3)), strict=True
    )
    ratio = float(np.median(theirs) / np.median(ours))
    measured("A3, plain loop over the width / ours, CPU time", f"{ratio:.1f}", "at least 1")
    assert ratio > 1
