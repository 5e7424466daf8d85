"""The flax model is its formulas, its trace is one forward pass, and an edit does what it says."""

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from mech.trace import Trace
from toy.errors import Refused
from toy.larger.edit import no_edit
from toy.larger.model import Averager, apply, predict
from toy.larger.shape import Shape
from toy.larger.weights import Weights, initial_weights, sizes
from toy.transformer import ToyTrace

_SPEC = importlib.util.spec_from_file_location("literal", Path(__file__).parent / "literal.py")
assert _SPEC is not None
assert _SPEC.loader is not None
literal = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(literal)

run, short = jax.jit(apply, static_argnums=0), jax.jit(predict, static_argnums=0)

SHAPES = [
    Shape(d_model=9, heads=3, layers=3, d_mlp=7),
    Shape(d_model=10, heads=2, d_mlp=5, norm=False, positions=True, longest=13),
    Shape(d_model=7, heads=1, layers=1, mlp=False),
]
SEQ = 11


def random_weights(shape, seed=0):
    """Float64, nothing at its initial 0 or 1."""
    rng = np.random.default_rng(seed)
    return Weights(**{n: np.asarray(rng.normal(size=s) / 2) for n, s in sizes(shape).items()})


@pytest.fixture(scope="module", params=SHAPES, ids=lambda s: f"{s.layers}x{s.heads}x{s.d_head}")
def case(request):
    """(shape, weights, x, t, last, output, trace) in float64; three padded sequences."""
    shape, rng = request.param, np.random.default_rng(1)
    w, x = random_weights(shape), rng.normal(size=(3, SEQ))
    t, last = np.array([1, 4, 8]), np.array([11, 7, 9])
    with jax.enable_x64(True):
        f, left = run(shape, w, x, t, last)
        trace = ToyTrace(*(np.asarray(field) for field in left))
        return shape, w, x, t, last, np.asarray(f), trace


# The largest stream here is near 30 and every number is a chain of some 100 float64 operations.
close = partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)


def test_equal_to_the_formulas_token_by_token(case):
    shape, w, x, t, last, f, trace = case
    for b in range(3):
        value, depths, patterns = literal.run(shape, w, x[b, : last[b]], t[b])
        close(f[b], value)
        close(trace.resid[:, b, : last[b]], depths)
        close(trace.pattern[:, b, :, : last[b], : last[b]], patterns)


def test_the_trace_is_one_forward_pass(case):
    shape, w, _, t, _, _, trace = case
    assert trace._fields == Trace._fields
    assert trace.resid.shape == (shape.layers + 1, 3, SEQ, shape.d_model)
    assert trace.z.shape == (shape.layers, 3, shape.heads, SEQ, shape.d_head)
    assert (trace.tokens.argmax(axis=1) + 1).tolist() == t.tolist()
    np.testing.assert_allclose(trace.pattern.sum(axis=-1), 1.0, rtol=1e-14)
    assert not np.triu(trace.pattern, k=1).any()
    for layer in range(shape.layers):
        stream = trace.resid[layer]
        read = _norm(shape, w, layer * (2 if shape.mlp else 1), stream)
        values = np.einsum("bsm,hmd->bhsd", read, w.W_V[layer])
        close(trace.z[layer], trace.pattern[layer] @ values)
        mid = stream + np.einsum("bhsd,hdm->bsm", trace.z[layer], w.W_O[layer])
        write = 0.0
        if shape.mlp:
            hidden = _norm(shape, w, layer * 2 + 1, mid) @ w.W_in[layer] + w.b_in[layer]
            write = np.maximum(hidden, 0) @ w.W_out[layer]
        close(trace.resid[layer + 1], mid + write)


def _norm(shape, w, which, stream):
    if not shape.norm:
        return stream
    flat = stream.reshape(-1, shape.d_model)
    return np.array([literal.norm(shape, w, which, row) for row in flat]).reshape(stream.shape)


def test_the_output_is_read_from_the_trace(case):
    shape, w, _, _, last, f, trace = case
    end = trace.resid[-1][np.arange(3), last - 1]
    read = np.array([literal.norm(shape, w, shape.norms - 1, row) for row in end])
    close(read @ w.W_U + w.b_U, f)


def test_the_short_way_has_the_same_output(case):
    shape, w, x, t, last, f, _ = case
    with jax.enable_x64(True):
        close(short(shape, w, x, t, last), f)


def test_what_follows_the_read_out_is_hidden(case):
    shape, w, x, t, last, f, _ = case
    other = np.where(np.arange(1, SEQ + 1)[None] > last[:, None], 50.0, x)
    with jax.enable_x64(True):
        close(run(shape, w, other, t, last)[0], f)


def test_no_edit_changes_nothing_and_each_edit_changes_its_own_layer(case):
    shape, w, x, t, last, f, trace = case
    nothing = no_edit(shape, 3, SEQ)
    with jax.enable_x64(True):
        same, _ = run(shape, w, x, t, last, nothing)
        close(same, f)
        flat = np.arange(shape.layers) == shape.layers - 1
        _, left = run(shape, w, x, t, last, nothing._replace(flat=flat))
        close(left.pattern[:-1], trace.pattern[:-1])
        uniform = np.tri(SEQ) / np.arange(1, SEQ + 1)[:, None]
        np.testing.assert_allclose(np.asarray(left.pattern[-1]) - uniform, 0, atol=1e-15)
        shift = np.random.default_rng(3).normal(size=trace.resid[1].shape)
        _, left = run(shape, w, x, t, last, nothing._replace(shift=shift))
        np.testing.assert_allclose(left.resid[1], trace.resid[1] + shift, rtol=1e-12, atol=1e-12)
        cut = nothing.cut.copy()
        cut[0, :, 0, 5:, 2] = True
        _, left = run(shape, w, x, t, last, nothing._replace(cut=cut))
    want = trace.pattern[0].copy()
    want[:, 0, 5:, 2] = 0
    want[:, 0] /= want[:, 0].sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(left.pattern[0], want, atol=1e-14)


def test_a_muted_mlp_writes_what_it_is_told():
    shape = SHAPES[0]
    w, x, t = (
        random_weights(shape),
        np.random.default_rng(1).normal(size=(2, SEQ)),
        np.array([2, 5]),
    )
    writes = np.random.default_rng(2).normal(size=(3, 9))
    edit = no_edit(shape, 2, SEQ)._replace(mute=np.array([False, True, False]), writes=writes)
    with jax.enable_x64(True):
        _, left = run(shape, w, x, t, None, edit)
    heads = np.einsum("bhsd,hdm->bsm", left.z[1], w.W_O[1])
    written = np.asarray(left.resid[2] - left.resid[1]) - heads
    np.testing.assert_allclose(written - writes[1], 0, atol=1e-12)


def test_flax_initialises_what_we_initialise():
    made = Averager(SHAPES[2]).init(jax.random.key(3), np.zeros((1, 5)), np.array([2]))
    assert jax.tree.map(np.shape, dict(made["params"])) == sizes(SHAPES[2])


def test_initial_scales_keep_variances():
    """Queries, values and hidden neurons of unit-variance inputs have the variances intended."""
    shape = Shape(d_model=64, heads=4, d_mlp=256)
    w = initial_weights(shape, jax.random.key(0))
    for matrix, variance in ((w.W_Q, 1 / 64), (w.W_V, 1 / 64), (w.W_in, 2 / 64)):
        n = matrix.size
        # Five standard errors of a variance over n normal draws.
        assert abs(np.var(matrix) / variance - 1) < 5 * np.sqrt(2 / n)
    assert abs(np.var(w.W_out) * 256 * 4 - 1) < 5 * np.sqrt(2 / w.W_out.size)
    assert (np.asarray(w.norm_scale) == 1).all()
    assert not np.asarray(w.b_in).any()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"heads": 3}, "3 heads do not divide d_model = 16"),
        ({"layers": 0}, "layers = 0"),
        ({"d_model": 0}, "d_model = 0"),
    ],
)
def test_sizes_that_make_no_transformer(wrong, words):
    with pytest.raises(Refused, match=words):
        replace(Shape(), **wrong)


def test_longer_than_the_positions_is_refused():
    shape = replace(SHAPES[1], longest=4)
    with pytest.raises(Refused, match="5 tokens, but 4 positions"):
        apply(shape, random_weights(shape), np.zeros((1, 5)), np.array([2]))
