import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

import mech.gguf
from mech.errors import BadInput
from mech.gguf import cache_folder, converted
from mech.load import load

D_MODEL, D_MLP, LAYERS, HEADS, KV_HEADS = 64, 96, 2, 4, 2
TOKENS = ["<s>", "</s>", *"abcdefghij", "ab", "cd"]


def write(path: Path, *, without: str = "") -> dict[str, np.ndarray]:
    """A real GGUF file of a tiny Llama, 8-bit; the tensors as GGUF understands them."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(D_MODEL)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(D_MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3] + [1] * (len(TOKENS) - 2))
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd": (len(TOKENS), D_MODEL),
        "output": (len(TOKENS), D_MODEL),
    }
    for layer in range(LAYERS):
        at = f"blk.{layer}"
        shapes |= {f"{at}.{n}": (D_MODEL, D_MODEL) for n in ("attn_q", "attn_output")}
        shapes |= {f"{at}.{n}": (D_MODEL // 2, D_MODEL) for n in ("attn_k", "attn_v")}
        shapes |= {f"{at}.{n}": (D_MLP, D_MODEL) for n in ("ffn_gate", "ffn_up")}
        shapes |= {f"{at}.ffn_down": (D_MODEL, D_MLP)}
        shapes |= {f"{at}.{n}": (D_MODEL,) for n in ("attn_norm", "ffn_norm")}
    shapes["output_norm"] = (D_MODEL,)
    tensors = {}
    for name, shape in shapes.items():
        kind = gguf.GGMLQuantizationType.F32 if len(shape) == 1 else gguf.GGMLQuantizationType.Q8_0
        packed = gguf.quantize(rng.standard_normal(shape).astype(np.float32), kind)
        tensors[name] = gguf.dequantize(packed, kind)
        if name != without:
            writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CTR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.gguf"
    write(path)
    return path


def never(*_):
    raise AssertionError("it was dequantised again")


def test_the_weights_are_those_of_the_file(cache, tmp_path):
    path = tmp_path / "tiny.gguf"
    tensors = write(path)
    found = load(str(path))
    own = found.model.get_parameter
    assert found.source == path
    for layer in range(LAYERS):
        for name, parameter in {
            "ffn_down": "mlp.down_proj",
            "ffn_gate": "mlp.gate_proj",
            "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj",
            "attn_norm": "input_layernorm",
        }.items():
            weight = own(f"model.layers.{layer}.{parameter}.weight").numpy()
            np.testing.assert_array_equal(weight, tensors[f"blk.{layer}.{name}"])
    np.testing.assert_array_equal(own("lm_head.weight").numpy(), tensors["output"])
    assert found.tokenizer("abcdj").input_ids == [12, 13, 11]


def test_it_is_dequantised_once(cache, file, monkeypatch):
    told = []
    first = load(str(file), advance=told.append)
    assert len(told) == 1
    monkeypatch.setattr(mech.gguf, "_dequantise", never)
    again = load(str(file), advance=told.append)
    assert len(told) == 1
    assert again.sha256 == first.sha256
    ids = torch.arange(2, 9)[None]
    assert torch.equal(again.model(ids).logits, first.model(ids).logits)
    # Under its content and not its name.
    copy = shutil.copy(file, file.with_name("other.gguf"))
    assert load(str(copy)).sha256 == first.sha256


def test_a_kill_in_the_middle_leaves_no_result(cache, file, monkeypatch):
    program = (
        "import os, signal, sys, mech.gguf\n"
        "from pathlib import Path\n"
        "mech.gguf._publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "mech.gguf.converted(Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(file)], check=False)
    assert done.returncode == -signal.SIGKILL
    (partial,) = (cache / "gguf").iterdir()
    assert partial.name.startswith(".partial-")
    place = converted(file)
    assert (place / "model.safetensors").is_file()
    # It may be another process at work, until it is a day old.
    assert partial.is_dir()
    yesterday = time.time() - 25 * 3600
    os.utime(partial, (yesterday, yesterday))
    shutil.rmtree(place)
    converted(file)
    assert not partial.exists()


def test_two_at_once_are_harmless(cache, file, monkeypatch):
    dequantise = mech.gguf._dequantise
    winner = []

    def overtaken(source, folder):
        monkeypatch.setattr(mech.gguf, "_dequantise", dequantise)
        winner.append(converted(source))
        (winner[0] / "first").touch()
        dequantise(source, folder)

    monkeypatch.setattr(mech.gguf, "_dequantise", overtaken)
    place = converted(file)
    assert [place] == winner
    assert (place / "first").exists()
    assert [p.name for p in (cache / "gguf").iterdir()] == [place.name]


def test_a_file_without_a_tensor_is_refused(cache, tmp_path):
    path = tmp_path / "tiny.gguf"
    write(path, without="blk.1.ffn_up")
    with pytest.raises(BadInput, match=r"lacks 1 weights .* model\.layers\.1\.mlp\.up_proj"):
        load(str(path))
    assert list((cache / "gguf").iterdir()) == []


@pytest.mark.parametrize("left", [0, 3, 500, -7])
def test_a_truncated_file_is_refused(cache, file, left):
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(BadInput, match=r"tiny\.gguf cannot be read as GGUF") as caught:
        load(str(file))
    assert "\n" not in str(caught.value)
    assert list((cache / "gguf").iterdir()) == []


def test_a_damaged_result_is_named(cache, file):
    load(str(file))
    (weights,) = cache.rglob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(BadInput, match=r"is damaged .* delete it and fetch or convert it again"):
        load(str(file))


def test_a_cache_that_cannot_be_written_is_named(file, monkeypatch, tmp_path):
    (tmp_path / "taken").touch()
    monkeypatch.setenv("CTR_CACHE", str(tmp_path / "taken"))
    with pytest.raises(BadInput, match=r"cannot write the cache: .* set CTR_CACHE"):
        load(str(file))


def test_where_the_cache_is(monkeypatch, tmp_path):
    for name in ("CTR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "catch-tag-release"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "catch-tag-release"
    monkeypatch.setenv("CTR_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
