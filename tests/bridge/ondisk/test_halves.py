"""Memory ends in the middle of a pass: half the batch, and on; one sequence, and one line."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from bridge.compress import compress
from bridge.evaluate import token_losses
from bridge.methods.gptq import GPTQ
from bridge.methods.wanda import Wanda
from bridge.shards import Shards
from bridge.sites import operators
from experiments.measure import sink_scores
from mech.errors import BadInput
from mech.load import load
from mech.memory import by_halves, out_of_memory


def full(model, room, layer, error: type[Exception] = torch.OutOfMemoryError):
    """A block has room for so many sequences only: it fails where most of it has been read."""
    seen = []

    def hook(_, args, output):
        seen.append(len(args[0]))
        if len(args[0]) > room:
            raise error("out of memory")

    model.model.layers[layer].mlp.down_proj.register_forward_hook(hook)
    return seen


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("layer", [0, 1])
def test_statistics_are_those_of_whole_batches(layer, on_disk, folders, batches, tmp_path):
    folder, found = str(folders("llama")), []
    for room in (99, 1):
        model = load(folder, on_disk=on_disk).model
        seen = full(model, room, layer)
        shards = Shards(tmp_path / f"{room}") if on_disk else None
        done = compress(model, GPTQ(), batches, shards=shards)
        found.append((done, shards, model, seen))
    (one, *_, whole), (two, *_, halves) = found
    assert one.halved == 0
    assert two.halved == 2  # 3 sequences: 2 and 1, then 1, 1 and 1
    assert max(whole) == 3
    assert halves.count(1) > len(whole)
    assert [row.name for row in one.rows] == [row.name for row in two.rows]
    for ours, theirs in zip(two.rows, one.rows, strict=True):
        assert ours.error == pytest.approx(theirs.error, rel=1e-5)
        assert ours.output_error == pytest.approx(theirs.output_error, rel=1e-5)


def test_with_token_weights_too(folders, batches):
    weights = [torch.rand(b.shape) for b in batches]
    matrices = []
    for room in (99, 1):
        model = load(str(folders("llama"))).model
        full(model, room, 1)
        compress(model, Wanda(), batches, token_weights=weights)
        placed: dict[str, Any] = operators(model, "*.q_proj")
        matrices.append({name: one.term.dense() for name, one in placed.items()})
    for name, matrix in matrices[0].items():
        torch.testing.assert_close(matrices[1][name], matrix, rtol=1e-6, atol=0)


def test_one_sequence_that_does_not_fit_is_one_line_and_the_model_as_before(folders, batches):
    model = load(str(folders("llama"))).model
    before = {name: t.clone() for name, t in model.state_dict().items()}
    full(model, 0, 1, MemoryError)
    with pytest.raises(BadInput, match=r"one sequence of 17 tokens does not fit .*shorter") as one:
        compress(model, Wanda(), batches)
    assert "\n" not in str(one.value)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_other_errors_are_not_taken_for_it(folders, batches):
    model = load(str(folders("llama"))).model
    seen = full(model, 1, 0)
    full(model, 0, 1, IndexError)
    with pytest.raises(IndexError):
        compress(model, Wanda(), [b[:1] for b in batches])
    assert seen == [1]
    assert not out_of_memory(RuntimeError("shapes do not fit"))
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))


def test_by_halves_keeps_the_order():
    tokens = torch.arange(35).view(7, 5)

    def run(part):
        if len(part) > 2:
            raise MemoryError
        return part

    assert torch.equal(torch.cat(by_halves(run, tokens, "here")), tokens)

    def never(part):
        raise MemoryError

    with pytest.raises(BadInput, match="here: one sequence of 5 tokens"):
        by_halves(never, tokens, "here")


def test_the_evaluation_goes_on_with_half_the_sequences(folders, batches):
    ids = torch.cat([batches[0].repeat(1, 4)] * 2)[:5]
    scores = []
    for room in (99, 1):
        model = load(str(folders("llama"))).model
        seen = full(model, room, 1)
        scores.append(sink_scores(model, ids, lambda _: None))
    assert seen.count(1) == len(ids)
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-5, atol=1e-7)
    full(model, 0, 1)
    with pytest.raises(BadInput, match="the sinks: one sequence of 68 tokens does not fit"):
        sink_scores(model, ids, lambda _: None)
    with pytest.raises(BadInput, match="window 0: one sequence of 8 tokens does not fit") as one:
        token_losses(model, ids[0], context=8, stride=8)
    assert "\n" not in str(one.value)


CHILD = """
import resource, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from bridge.compress import compress
from bridge.methods.wanda import Wanda
import transformers
sizes = dict(vocab_size=97, hidden_size=32, intermediate_size=8192, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=2)
torch.manual_seed(0)
model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
tokens = torch.randint(3, 97, (8, 256), generator=torch.Generator().manual_seed(0))
compress(model, Wanda(), [tokens[:1, :8]], select="layers.1.*q_proj")  # what is loaded on the way
rows = Path("/proc/self/status").read_text().splitlines()
used = 1024 * int(next(r for r in rows if r.startswith("VmData")).split()[1])
limit = used + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
done = compress(model, Wanda(), [tokens])
print(done.halved, done.rows[-1].error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mappings on Linux only")
def test_under_a_real_limit(tmp_path):
    def child(megabytes):
        command = [sys.executable, "-c", CHILD, str(megabytes)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    found = [child(size) for size in (4000, 120)]
    assert [one.returncode for one in found] == [0, 0], found[1].stderr
    (whole, error), (halved, again) = (one.stdout.split() for one in found)
    assert whole == "0"
    assert int(halved) > 0
    assert float(again) == pytest.approx(float(error), rel=1e-5)
    none = child(8)
    assert none.returncode == 1
    assert "does not fit into memory" in none.stderr.splitlines()[-1]
