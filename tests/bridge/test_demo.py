"""On the demo model: the fast split against the definition, and the order of the methods."""

import pytest
import torch

from bridge.compress import compressed
from bridge.evaluate import perplexity
from bridge.methods.magnitude import Magnitude
from bridge.methods.oats import OATS, scale
from bridge.methods.wanda import Wanda
from bridge.sites import linears
from bridge.splitting import FullSVD
from bridge.statistics import Moment, diagonal_moment
from bridge.stream import hooked

pytestmark = [pytest.mark.model, pytest.mark.data]


@pytest.fixture(scope="module")
def loaded():
    load = pytest.importorskip("mech.load")
    return load.load("smollm2")


def tokens(loaded, data, split: str, count: int):
    text = (data / "wikitext2_raw" / f"wiki.{split}.raw").read_text()[: count * 8]
    return torch.tensor(loaded.tokenizer(text).input_ids[:count])


@pytest.fixture(scope="module")
def calibration(loaded, data):
    return list(tokens(loaded, data, "valid", 768).view(6, 128).split(3))


@pytest.fixture(scope="module")
def moments(loaded, calibration) -> dict[str, Moment]:
    """Of the dense model's linears; enough to have real weights with a real scale."""
    chosen = linears(loaded.model, "layers.[05].*")
    seen = {name: diagonal_moment.init(linear.in_features) for name, linear in chosen.items()}

    def watcher(name):
        def hook(_, args, kwargs):
            seen[name] = diagonal_moment.update(seen[name], args[0].flatten(0, -2))

        return hook

    with hooked([(m, "pre", watcher(name)) for name, m in chosen.items()]), torch.no_grad():
        for batch in calibration:
            loaded.model(batch)
    return seen


@pytest.mark.parametrize(
    "name",
    [
        "layers.0.self_attn.k_proj",
        "layers.5.self_attn.v_proj",
        "layers.0.self_attn.q_proj",
        "layers.5.mlp.up_proj",
    ],
)
def test_fast_reaches_the_error_of_the_definition(name, loaded, moments, measured):
    weight, moment = linears(loaded.model)[name].weight.detach(), moments[name]
    columns = scale(moment)
    fast, full = (
        ((weight - method(weight, moment).dense()).double() * columns).norm()
        for method in (OATS(), OATS(truncation=FullSVD()))
    )
    measured(f"fast OATS against 80 full SVDs, error on {name}", f"{fast / full:.3f}", "1.001")
    assert fast < full


def test_at_half_the_parameters_oats_beats_wanda_beats_magnitude(
    loaded, calibration, data, measured
):
    ids = tokens(loaded, data, "test", 1024)
    losses = [perplexity(loaded.model, ids, context=128, stride=128)]
    for method in (OATS(), Wanda(), Magnitude()):
        # A third of the model: enough for the order, in a third of the time.
        with compressed(loaded.model, method, calibration, select="layers.?.*") as compression:
            assert 0.499 < compression.density <= 0.5
            losses.append(perplexity(loaded.model, ids, context=128, stride=128))
    found = ", ".join(f"{loss.ppl:.4g}" for loss in losses)
    measured("perplexity dense, OATS, Wanda, magnitude (blocks 0 to 9 at 50%)", found, "rising")
    assert [loss.nll for loss in losses] == sorted(loss.nll for loss in losses)
