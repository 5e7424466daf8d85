"""Runs that are killed, asked for nothing, or answered with what is stale."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import transformers
from command import CTR, SMALL, expect_refused

from bridge.checkpoint import reread
from bridge.manifest import MANIFEST
from ctr_kernels.hard_threshold import hard_threshold
from ctr_kernels.op import Unsupported
from experiments.fewshot.kept import weights_of
from experiments.remembered import Found, remembered

QUICK = (*SMALL, "--method", "wanda")


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of the weights and of every block that was kept."""
    files = sorted(folder.rglob("*.safetensors"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_killed_mid_run(here, model, tmp_path):
    """SIGKILL after the first block: the same command goes on, to the same bytes, and a command
    that would give others is refused. A block that was cut is done again, aloud."""
    assert here("compress", model, "whole", *QUICK, "--shards", "whole-kept").returncode == 0
    shutil.rmtree(tmp_path / "out")
    slow = (*QUICK, "--shards", "kept")
    process = subprocess.Popen(
        [CTR, "compress", str(model), "saved", *map(str, slow)],
        cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CTR_STORE": str(tmp_path / "s.sqlite")},
    )  # fmt: skip
    while not (tmp_path / "kept" / "block-00000.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "saved").exists()
    before = sums(tmp_path / "kept")
    done = here("compress", model, "other", *SMALL, "--method", "magnitude", "--shards", "kept")
    expect_refused(done, "kept belongs to another run", "its method is", "choose another folder")
    assert sums(tmp_path / "kept") == before
    cut = tmp_path / "kept" / "block-00000.safetensors"
    cut.write_bytes(cut.read_bytes()[:-9])
    done = here("compress", model, "saved", *slow)
    assert done.returncode == 0, done.stderr
    assert sums(tmp_path / "saved") == sums(tmp_path / "whole")
    assert _tensors(tmp_path / "kept") == _tensors(tmp_path / "whole-kept")


def _tensors(folder: Path) -> dict[str, dict]:
    """Of every block, without the seconds that its account holds."""
    from safetensors.torch import load_file

    return {
        file.name: {key: tensor.tolist() for key, tensor in load_file(file).items()}
        for file in sorted(folder.glob("block-*.safetensors"))
    }


def test_targets_matched_nothing(here, model, tmp_path):
    """A glob without a match is refused with the nearest names, before anything is read; and
    what was achieved is counted again in what was saved."""
    done = here("compress", model, "saved", *QUICK, "--select", "layers.9.*")
    expect_refused(done, "layers.9.*", "names are like layers.")
    assert list(tmp_path.iterdir()) == []
    assert here("compress", model, "saved", *QUICK).returncode == 0
    said = reread(tmp_path / "saved")
    layer = next(iter(said["layers"].values()))
    assert layer["kept"] == layer["parameters"] // 2
    layer["kept"] += 1
    (tmp_path / "saved" / MANIFEST).write_text(json.dumps(said))
    with pytest.raises(ValueError, match="does not load as what was in memory"):
        reread(tmp_path / "saved")


def test_stale_evaluation_cache(tmp_path):
    """The key of an answer holds the weights: one bit of one weight is another question."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=5, hidden_size=4, intermediate_size=3, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    model, asked = transformers.LlamaForCausalLM(config).eval(), []

    def answer() -> float:
        def compute() -> Found:
            asked.append(1)
            return Found({}, {"sum": float(model.lm_head.weight.detach().sum())})

        return remembered(tmp_path, {"weights": weights_of(model)}, compute).facts["sum"]

    first = answer()
    assert (answer(), len(asked)) == (first, 1)
    with torch.no_grad():
        weight = model.lm_head.weight.view(torch.int32)
        weight[0, 0] ^= 1 << 22
    assert answer() != first
    assert len(asked) == 2


def test_kernel_outside_its_domain(here, model, tmp_path):
    """A kernel that does not cover a dtype says so and the definition runs; by name nobody falls
    back; and the row says which one ran."""
    x = torch.randn(3, 5, dtype=torch.float64)
    ran = hard_threshold.run(x, 2)
    assert ran.backend == "reference"
    assert torch.equal(ran.value, hard_threshold.reference(x, 2))
    with pytest.raises(Unsupported):
        hard_threshold.on("cpu")(x, 2)
    assert here("compress", model, *QUICK).returncode == 0
    told = json.loads((tmp_path / "out" / "compress" / "result.json").read_text())
    assert told["inputs"]["kernels"]["hard_threshold"] in ("cpu", "reference")
