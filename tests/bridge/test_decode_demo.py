"""On the demo model: steps of decoding are a masked pass over the text, up to rounding.

Up to rounding is little in a dense model and much in a sparse one: an input that lies within
rounding of its threshold is read or not, which moves what later thresholds are compared with.
"""

import pytest
import torch

from bridge.decode.inputs import calibrate
from bridge.decode.plan import Setting
from bridge.decode.recipe import fit
from bridge.decode.sparsified import sparsified
from bridge.sites import linears

pytestmark = [pytest.mark.model, pytest.mark.data]


@torch.no_grad()
def test_steps_predict_what_one_pass_predicts(data, measured):
    load = pytest.importorskip("mech.load")
    loaded = load.load("smollm2")
    model = loaded.model
    text = (data / "wikitext2_raw" / "wiki.valid.raw").read_text()[:5000]
    ids = torch.tensor(loaded.tokenizer(text).input_ids[:640]).view(5, 128)
    plan = dict.fromkeys(linears(model), Setting(0.5))
    low = Setting(0.5, 0.9, "column", "moment")
    plan |= dict.fromkeys((name for name in plan if name.startswith("layers.3.self")), low)
    recipe = fit(model, plan, calibrate(model, [ids[1:]]))
    assert recipe.read_share(model) == pytest.approx(0.5, abs=1e-9)
    window, targets = ids[:1, :24], ids[0, 1:25]

    def loss(logits):
        return torch.nn.functional.cross_entropy(logits[0], targets, reduction="none")

    def whole():
        return loss(model(window).logits)

    dense = whole()
    with sparsified(model, recipe, sparse_from=0.0, count=True) as decoding:
        gated = whole()
    handle = model.get_input_embeddings().register_forward_hook(
        lambda _, __, y: y * (1 + 1e-6 * torch.randn(y.shape, generator=torch.manual_seed(0)))
    )
    moved = (whole() - dense).abs().mean()
    with sparsified(model, recipe, sparse_from=0.0):
        moved_gated = (whole() - gated).abs().mean()
    handle.remove()
    found = f"{moved_gated:.1e} nats a token sparse, {moved:.1e} dense"
    measured("a relative error of 1e-6 in the embedding moves", found, "sparse 100 times as much")
    assert moved_gated > 100 * moved
    assert 0.4 < decoding.read < 0.55

    model.double()
    with sparsified(model, recipe, sparse_from=0.0):
        wanted = whole()
    with sparsified(model, recipe, layout="shared") as steps:
        past, parts = None, []
        for token in window.split(1, 1):
            out = model(token, past_key_values=past, use_cache=True)
            past = out.past_key_values
            parts.append(out.logits)
    gap = (loss(torch.cat(parts, 1)) - wanted).abs().max()
    measured("steps against one masked pass, float64", f"{gap:.1e} nats", "below 1e-9")
    assert gap < 1e-9
    assert steps.tokens_sparse == 1.0
