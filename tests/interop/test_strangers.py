"""Dense in plain transformers, base+lora in stock PEFT: in a process that has none of ours."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

# PEFT 0.21 reads a name that transformers 5.23 has given up; packed is meant to be unknown.
STRANGER = [
    sys.executable, "-W", "error", "-W", "ignore:`is_gradient_checkpointing`:FutureWarning",
    str(Path(__file__).parent / "stranger.py"),
]  # fmt: skip


@pytest.fixture(scope="module")
def said(exported):
    done = subprocess.run(
        [*STRANGER, str(exported.folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_dense_is_a_model_of_its_family(said, exported):
    assert said["dense"]["logits"] < 1e-5
    assert said["dense"]["told"]
    assert said["words"] == [exported.tokenizer("w1 w2")["input_ids"]] * 2


def test_stock_peft_serves_the_adapter_merges_it_and_generates(said):
    assert said["adapted"]["logits"] < 1e-5  # S x + B (A x), summed in the order of padded factors
    assert said["adapted"]["told"]
    assert 0 < said["merged"]["logits"] < 1e-5
    assert said["merged"]["told"]


def test_the_differences_are_told_from_those_of_another_model(said, exported):
    """Controls: without the adapter, and before the compression."""
    reference = load_file(exported.folder / "reference.safetensors")
    assert (reference["before"] - reference["logits"]).abs().max() > 0.1
    assert said["base alone"]["logits"] > 0.1


def test_packed_is_refused_where_ours_is_not(said):
    assert "mismatch" in said["packed"]
