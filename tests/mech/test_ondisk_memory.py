"""A folder of three times the memory that a process may have, read to its last block.

The limit is RLIMIT_DATA: the kernel refuses any further private memory, whoever asks. It does not
count the page cache, which the system takes back when it needs room; nor should it. The files
hold bfloat16 and the model runs in float32 (the default), so the model in memory is six limits,
all private: what kills the control is need and not the way a file was opened.

A torch built for GPUs maps half a GiB more than the limit before it computes anything: there the
limit is as much higher.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from mech.capture import capture_blocks

MB = 2**20
LIMIT = 512 * MB
IMPORTED = 280 * MB  # of which: interpreter, torch for CPUs, and transformers
D_MODEL, D_MLP, LAYERS = 1024, 2560, 67

# The control comes last, in the same process: what `load` does, without the digest and the checks
# that take time and no memory.
CHILD = """
import json, resource, sys
folder, limit, imported, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
import numpy as np, torch
from mech.blocks import decoder_blocks
from mech.capture import capture_blocks
from mech.load import load
from transformers import AutoModelForCausalLM

def private(what="RssAnon"):
    line = next(l for l in open("/proc/self/status") if l.startswith(what))
    return int(line.split()[1]) * 1024

limit += max(0, private("VmData") - imported)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

model, inside = load(folder, on_disk=True).model, []
for block in decoder_blocks(model):
    block.mlp.register_forward_hook(lambda *_: inside.append(private()))
tokens = torch.arange(18).view(2, 9)
seen = capture_blocks(model, tokens, lambda b: (b.received, b.resid_post[:, -1].copy()))
np.savez(out, *(array for block in seen for array in block))
print(json.dumps(inside), flush=True)
AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama, a file for each block: never whole in memory, neither here nor below."""
    folder = tmp_path_factory.mktemp("large")
    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=D_MODEL, intermediate_size=D_MLP, num_hidden_layers=LAYERS,
        num_attention_heads=8, num_key_value_heads=8, tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(folder)
    core = Tokenizer(models.WordLevel({"a": 0, "<s>": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>").save_pretrained(folder)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in transformers.LlamaForCausalLM(config).state_dict().items()}
    # Slices of one pool: two gigabytes of random numbers would take longer than the test.
    pool = 0.03 * torch.randn(D_MODEL * D_MLP + 10**6, generator=torch.Generator().manual_seed(0))
    pool, shards, index = pool.bfloat16(), {}, {}
    for i, (name, shape) in enumerate(shapes.items()):
        start = 7919 * i % 10**6
        weight = pool[start : start + shape.numel()].view(shape).clone()
        if "norm" in name:
            weight += 1
        parts = name.split(".")
        shards.setdefault(parts[2] if parts[1] == "layers" else "rest", {})[name] = weight
        if len(shards) > 1:
            write(folder, shards, index, keep=list(shards)[-1])
    write(folder, shards, index, keep=None)
    content = {"metadata": {}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return folder


def write(folder, shards, index, keep):
    for shard in [s for s in shards if s != keep]:
        weights = shards.pop(shard)
        file = f"model-{shard}-{len(index)}.safetensors"
        save_file(weights, folder / file, metadata={"format": "pt"})
        index.update(dict.fromkeys(weights, file))


def blockwise(folder):
    """What the blocks see and write, by a model of one block in memory, for each block in turn.

    Its embedding is the stream that the block before left: the tokens are all distinct.
    """
    config = transformers.LlamaConfig.from_pretrained(folder, num_hidden_layers=1)
    model = transformers.LlamaForCausalLM(config).float().eval()
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    rest, tokens = load_file(folder / index["model.embed_tokens.weight"]), torch.arange(18)
    stream = rest["model.embed_tokens.weight"].float()[tokens]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        weights = load_file(folder / index[f"{prefix}mlp.up_proj.weight"])
        block = {name.removeprefix(prefix): weight for name, weight in weights.items()}
        model.model.layers[0].load_state_dict(block)
        model.model.embed_tokens.weight.data[tokens] = stream
        (seen,) = capture_blocks(model, tokens.view(2, 9), lambda b: (b.received, b.resid_post))
        yield seen
        stream = torch.from_numpy(seen[1]).flatten(0, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mappings on Linux only")
def test_a_folder_of_three_times_the_limit(folder, tmp_path, measured):
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert size >= 3 * LIMIT
    files = {file: file.stat().st_mtime_ns for file in folder.iterdir()}

    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, (folder, LIMIT, IMPORTED, tmp_path / "disk.npz"))],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.stdout, done.stderr
    assert done.returncode != 0
    assert "memory" in done.stderr.lower(), done.stderr  # of the control
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == files

    found = np.load(tmp_path / "disk.npz")
    assert len(found.files) == 2 * LAYERS
    for layer, (received, resid) in enumerate(blockwise(folder)):
        np.testing.assert_array_equal(found[f"arr_{2 * layer}"], received)
        np.testing.assert_array_equal(found[f"arr_{2 * layer + 1}"], resid[:, -1])

    block = 4 * (4 * D_MODEL**2 + 3 * D_MODEL * D_MLP)
    inside = np.array(json.loads(done.stdout))
    grown = inside.max() - inside[:4].max()
    measured("folder over the limit of private memory", f"{size / LIMIT:.2f}", "at least 3")
    measured("private memory, on disk", f"{inside.max() / MB:.0f} MB", f"{LIMIT / MB:.0f} MB")
    measured(f"growth from block 4 to block {LAYERS}", f"{grown / block:.2f} blocks", "below 0.5")
    assert grown < block / 2
