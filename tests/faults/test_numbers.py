"""Numbers that cannot be used: the layer is named, the model is as it was, nothing is written."""

import shutil

import pytest
import torch
import transformers
from command import SMALL, expect_refused
from safetensors.torch import load_file, save_file

from bridge.compress import compress
from bridge.edit import edit_weight
from bridge.manifest import content_hash
from bridge.methods.gptq import GPTQ
from bridge.methods.sparsegpt import SparseGPT
from bridge.methods.wanda import Wanda
from bridge.moments import MOST
from bridge.statistics import SecondMoment
from mech.errors import BadInput
from mech.ondisk import model_on_disk

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def llama():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=36, intermediate_size=52, num_hidden_layers=2,
        num_attention_heads=6, num_key_value_heads=2, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture
def tokens(generator):
    return torch.randint(3, 97, (2, 17), generator=generator)


@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_nan_or_inf_weight(here, model, tmp_path, bad):
    """`ctr` names the weight and its block before anything is calibrated; OUT is not made."""
    folder = tmp_path / "m"
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights[NAME][3, 5] = float(bad)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    done = here("compress", folder, "saved", "--shards", "kept", *SMALL)
    expect_refused(done, NAME, "block 1", "NaN or inf")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_nan_or_inf_activation(llama, tokens):
    """fp16 overflows inside a block whose weights are all finite: without a check, NaN logits and
    no error. The block is named, and the model is as it was."""
    llama.half()
    with torch.no_grad():
        llama.model.layers[1].mlp.down_proj.weight.fill_(3e4)
        llama.model.layers[1].mlp.up_proj.weight.fill_(1e3)
        assert not bool(llama(tokens).logits.isfinite().all())
    before = content_hash(llama)
    with pytest.raises(BadInput, match=r"layers\.1.*not finite.*bfloat16 or float32") as caught:
        compress(llama, Wanda(), [tokens])
    assert "\n" not in str(caught.value)
    assert content_hash(llama) == before


@pytest.mark.parametrize("method", [SparseGPT(damping=0.0), GPTQ(damping=0.0)])
def test_hessian_not_positive_definite(method, generator):
    """Dead columns have a place of their own; a singular moment is damped in steps, which the
    operator's note tells; what no damping mends is one line."""
    weight = torch.randn(7, 12, generator=generator)
    x = torch.randn(3, 12, generator=generator).double()
    x[:, 4] = 0
    singular = SecondMoment(x.mT @ x, 3)
    operator = method(weight, singular)
    assert "damping raised from 0" in operator.note
    assert bool(operator.dense().isfinite().all())
    beside = torch.full((12, 12), 1e3 * MOST, dtype=torch.float64)
    indefinite = SecondMoment(beside.fill_diagonal_(1.0), 3)
    with pytest.raises(BadInput, match=r"not positive semidefinite|does not factor") as caught:
        method(weight, indefinite)
    assert "\n" not in str(caught.value)


def test_off_loaded_weight_edited(llama, tokens, tmp_path):
    """A write into a weight that is read from its file is lost in silence; `edit_weight` arrives,
    and where nothing holds the numbers it says so."""
    llama.save_pretrained(tmp_path / "m")
    files = sorted((tmp_path / "m").glob("*.safetensors"))
    stored = files[0].read_bytes()
    model = model_on_disk(tmp_path / "m", files, torch.float32, torch.device("cpu"))
    with torch.no_grad():
        dense = model(tokens).logits
        model.get_parameter(NAME).zero_()
        assert torch.equal(model(tokens).logits, dense)
        edit_weight(model, NAME, torch.zeros(52, 36), folder=tmp_path / "edits")
        llama.get_parameter(NAME).zero_()
        assert torch.equal(model(tokens).logits, llama(tokens).logits)
    assert files[0].read_bytes() == stored
    with pytest.raises(BadInput, match="nothing holds its numbers"):
        edit_weight(llama.to("meta"), NAME, torch.zeros(52, 36))
