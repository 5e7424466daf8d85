"""Files that are damaged, missing, or not to be trusted: one line each, and nothing written."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command import SMALL, expect_refused
from safetensors.torch import load_file, save_file

QUICK = (*SMALL, "--method", "magnitude")


def copied(model: Path, to: Path) -> Path:
    shutil.copytree(model, to)
    return to


def refused(here, folder: Path, *words: str) -> None:
    """`ctr compress` says so in one line, and neither OUT nor the run's folder is there."""
    work = folder.parent
    before = sorted(work.iterdir())
    expect_refused(here("compress", folder, "saved", *QUICK), *words)
    assert sorted(work.iterdir()) == before


@pytest.fixture
def packed(here, model, tmp_path) -> Path:
    done = here("compress", model, "packed", *SMALL, "--iterations", 2, "--form", "packed")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "out")
    return tmp_path / "packed"


def test_checkpoint_truncated(here, model, tmp_path):
    file = copied(model, tmp_path / "m") / "model.safetensors"
    file.write_bytes(file.read_bytes()[: -file.stat().st_size // 3])
    refused(here, tmp_path / "m", f"{file} is damaged", "fetch or convert it again")


def test_byte_flipped(here, model, tmp_path):
    """The manifest of what we saved is checked when it is loaded; safetensors would not say."""
    assert here("compress", model, "saved-once", *QUICK).returncode == 0
    folder = tmp_path / "saved-once"
    shutil.rmtree(tmp_path / "out")
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    assert load_file(file)  # by itself it loads
    refused(here, folder, f"{file} is not the file that was saved", "fetch it whole")
    content[-5] ^= 1
    file.write_bytes(content)
    assert here("compress", folder, "again", *QUICK).returncode == 0


def test_our_format_plugin_missing(packed):
    """Without `import bridge` the packed form stops: it is never filled with random weights."""
    code = (
        "import sys; from transformers import AutoModelForCausalLM as A\n"
        "assert 'bridge' not in sys.modules\n"
        "A.from_pretrained(sys.argv[1], local_files_only=True)"
    )
    done = subprocess.run([sys.executable, "-c", code, packed], capture_output=True, text=True)
    assert done.returncode == 1
    assert "mismatch" in done.stderr.splitlines()[-1] + done.stderr.splitlines()[-2]


def test_shape_mismatch(here, model, tmp_path):
    file = copied(model, tmp_path / "m") / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.0.self_attn.q_proj.weight"] = torch.ones(3, 5)
    save_file(weights, file, metadata={"format": "pt"})
    refused(here, tmp_path / "m", str(tmp_path / "m"), "cannot be read")


def test_nnz_mismatch(here, packed):
    """One value fewer than the bitmask has places; the manifest is taken away, so it is found
    by the operator itself."""
    file = packed / "model.safetensors"
    weights = load_file(file)
    name = next(key for key in weights if key.endswith("q_proj.0.values") or "q_proj" in key)
    weights[name] = weights[name].reshape(-1)[:-1].clone()
    save_file(weights, file, metadata={"format": "pt"})
    config = packed / "config.json"
    config.write_text(config.read_text().replace('"manifest": true', '"manifest": false'))
    (packed / "manifest.json").unlink()
    refused(here, packed, str(packed), "cannot be read")


def test_missing_tokenizer(here, model, tmp_path):
    for file in copied(model, tmp_path / "m").glob("tokenizer*"):
        file.unlink()
    refused(here, tmp_path / "m", "has no tokenizer", "tokenizer.json and tokenizer_config.json")


def test_pickle(here, model, tmp_path):
    """It is named and left unopened: reading this one would leave a file behind."""
    folder = copied(model, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(
        b"cposix\nsystem\n(S'touch %s'\ntR." % str(tmp_path / "was-run").encode()
    )
    refused(here, folder, "pytorch_model.bin, a pickle", "convert it to safetensors")
    assert not (tmp_path / "was-run").exists()


def test_remote_code(here, model, tmp_path):
    folder = copied(model, tmp_path / "m")
    own = '"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "o.M"}'
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"model_type": "llama"', own))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')")
    refused(here, folder, str(folder), "cannot be read")
    assert not (tmp_path / "was-run").exists()


def test_hub_id_off_line(here, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    done = here("compress", "some-one/some-model", *QUICK)
    tried = str(tmp_path / "some-one" / "some-model")
    expect_refused(done, tried, str(tmp_path / "hub"), "download it where there is a network")
    assert list(tmp_path.iterdir()) == []
