"""Which heads, which columns, and what the others keep."""

import numpy as np
import pytest
import torch

from bridge.compress import compressed
from bridge.methods.sink_heads import SinkHeads, first_token_sinks, specialised
from bridge.operators import Affine, Stack
from bridge.sites import linears, module
from bridge.sliced import Sliced
from bridge.stream import hooked
from mech.errors import BadInput

WIDTH = 36  # the tiny Llama: 6 query heads of 6, 2 key heads, 36 channels


def reads(model, batches, layer):
    """What W_q of a layer reads, [window, seq, channel]."""
    seen = []

    def hook(_, args, kwargs):
        seen.append(args[0])

    name = f"layers.{layer}.self_attn.q_proj"
    with hooked([(module(model, name), "pre", hook)]), torch.no_grad():
        for tokens in batches:
            model(tokens)
    return seen


def term(model, name):
    """Of an operator that stands there over its bias."""
    operator = module(model, name)
    assert isinstance(operator, Affine)
    return operator.term


@pytest.mark.parametrize("by", ["bos", "mean"])
def test_a_pruned_head_reads_the_largest_channels_and_no_other(llama, batches, by):
    seen = reads(llama, batches, 0)
    rows = [x[:, 0] if by == "bos" else x.flatten(0, 1) for x in seen]
    size = torch.cat(rows).abs().mean(0)
    columns = sorted(range(WIDTH), key=lambda j: -float(size[j]))[:7]
    dense = {n: linear.weight.clone() for n, linear in linears(llama).items()}
    # All query heads of key head 1, one of key head 0.
    heads = ((0, 1), (0, 3), (0, 4), (0, 5))
    with compressed(llama, SinkHeads(heads, columns=7, by=by), batches) as compression:
        assert len(compression.rows) == 2
        matrices = {role: term(llama, f"layers.0.self_attn.{role}_proj").dense() for role in "qk"}
    for role, pruned in (("q", {1, 3, 4, 5}), ("k", {1})):
        whole = dense[f"layers.0.self_attn.{role}_proj"]
        for head in range(len(whole) // 6):
            own, expected = (m[6 * head : 6 * head + 6] for m in (matrices[role], whole.clone()))
            if head in pruned:
                gone = [j for j in range(WIDTH) if j not in columns]
                expected[:, gone] = 0
            assert torch.equal(own, expected), (role, head)
    kept = {row.name[-6]: row.cost.kept for row in compression.rows}
    assert kept == {"q": 6 * (2 * WIDTH + 4 * 7), "k": 6 * (WIDTH + 7)}


def test_all_columns_change_nothing(llama, batches):
    every = tuple((layer, head) for layer in range(3) for head in range(6))
    with torch.no_grad():
        before = llama(batches[0]).logits
        with compressed(llama, SinkHeads(every, columns=WIDTH), batches):
            after = llama(batches[0]).logits
        with compressed(llama, SinkHeads(every, columns=2), batches):
            assert (llama(batches[0]).logits - before).abs().max() > 1e-3
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)


def test_random_columns_are_as_many_and_those_of_the_seed(llama, batches):
    def columns(seed):
        method = SinkHeads(((1, 0), (1, 1), (1, 2)), columns=5, by="random", seed=seed)
        with compressed(llama, method, batches):
            stack = term(llama, "layers.1.self_attn.k_proj")
            assert isinstance(stack, Stack)
            few, _ = stack.each()
            assert isinstance(few, Sliced)
            assert few.columns is not None
            return few.columns.tolist()

    assert columns(0) == columns(0) != columns(1)
    assert len(columns(0)) == 5


def test_heads_are_those_that_keep_the_sink_in_most_prompts(llama, batches):
    has = np.zeros((10, 2, 3), dtype=bool)
    has[:9, 0, 1] = has[:, 1, 2] = has[:8, 1, 0] = True
    assert specialised(has) == ((0, 1), (1, 2))
    assert specialised(has, layers=[1], least=0.8) == ((1, 0), (1, 2))
    with pytest.raises(BadInput, match="no head of these layers"):
        specialised(has, layers=[0], least=1.0)
    found = first_token_sinks(llama, batches, epsilon=0.15)
    assert found.shape == (5, 3, 6)
    with torch.no_grad():
        llama.set_attn_implementation("eager")
        patterns = [llama(tokens, output_attentions=True).attentions for tokens in batches]
    alpha = torch.cat([torch.stack(p)[..., 0].mean(-1) for p in patterns], dim=1)
    np.testing.assert_array_equal(found, (alpha > 0.15).transpose(0, 1).numpy())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": ()}, "no heads"),
        ({"heads": ((0, 6),)}, "layers.0 has heads 0 to 5: there is no head 6"),
        ({"heads": ((0, 0),), "columns": 0}, "at least one"),
        ({"heads": ((0, 0),), "columns": 37}, "reads 36"),
        ({"heads": ((0, 0),), "by": "max"}, "one of bos, mean, random"),
    ],
)
def test_what_is_no_setting_is_refused(llama, batches, settings, message):
    with pytest.raises(BadInput, match=message), compressed(llama, SinkHeads(**settings), batches):
        pass


def test_a_norm_on_queries_is_no_obstacle(families, batches):
    model = families["qwen3"]()
    with compressed(model, SinkHeads(((0, 0),), columns=3), batches) as compression:
        assert [row.name for row in compression.rows] == ["layers.0.self_attn.q_proj"]
        with torch.no_grad():
            assert model(batches[0]).logits.isfinite().all()
