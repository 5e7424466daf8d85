"""On the demo model: what one threshold reads of sinks, and a text decoded step by step."""

import pytest
import torch

from bridge.decode.forced import decoded_losses
from bridge.decode.inputs import calibrate
from bridge.decode.plan import Setting
from bridge.decode.recipe import fit
from bridge.decode.sinks import massive_dims
from bridge.decode.sparsified import sparsified
from bridge.sites import linears

pytestmark = [pytest.mark.model, pytest.mark.data]


@pytest.fixture(scope="module")
def loaded():
    return pytest.importorskip("mech.load").load("smollm2")


@pytest.fixture(scope="module")
def ids(loaded, data):
    text = (data / "wikitext2_raw" / "wiki.valid.raw").read_text()[:4000]
    return torch.tensor(loaded.tokenizer(text).input_ids[:512]).view(4, 128)


def test_one_threshold_starves_the_first_token(loaded, ids, measured):
    """Its massive dimension leaves the norm's other outputs, and what follows, next to nothing."""
    assert massive_dims(loaded.model, ids[:2])[0] == 507
    inputs = calibrate(loaded.model, [ids], select="layers.2[0-4].*")
    first, others = [], []
    for name in linears(loaded.model, "layers.2[0-4].*.gate_proj"):
        kept = inputs.rows(name).abs() > inputs.quantile(name, 0.5)
        at = inputs.read[name].places[:, 1] == 0
        first.append(float(kept[at].float().mean()))
        others.append(float(kept[~at].float().mean()))
    assert sum(others) / len(others) == pytest.approx(0.5, abs=0.02)
    measured("channels read of a first token at 50%", f"{max(first):.3f}", "below .1")
    assert max(first) < 0.1


def test_decoding_step_by_step_is_one_pass_with_a_dense_prompt(loaded, ids, measured):
    """On real weights rounding moves some channels across their threshold, and losses by little."""
    model, some = loaded.model, ids[:1, :48]
    plan = {name: Setting(0.5) for name in linears(model, "layers.[0-9].*")}
    recipe = fit(model, plan, calibrate(model, [ids[1:2]], select="layers.[0-9].*"))
    with sparsified(model, recipe, sparse_from=1.0):
        stepwise = decoded_losses(model, some, 24)
    with sparsified(model, recipe, sparse_from=0.5), torch.no_grad():
        logits = model(input_ids=some, use_cache=False).logits[:, 24:-1]
    at_once = torch.nn.functional.cross_entropy(logits.mT, some[:, 25:], reduction="none")
    with torch.no_grad():
        dense = model(input_ids=some, use_cache=False).logits[:, 24:-1]
    untouched = torch.nn.functional.cross_entropy(dense.mT, some[:, 25:], reduction="none")
    moved = float((stepwise - at_once).abs().mean())
    measured("step by step against one pass, nats a token", f"{moved:.5f}", "below .01")
    assert moved < 0.01
    assert (at_once - untouched).abs().mean() > 0.1
