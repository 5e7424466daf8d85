"""On real weights: the closed forms are below the heuristics where they were calibrated."""

import pytest

from bridge.methods import METHODS
from experiments import moment_layers
from mech.load import load
from mech.tokens import encode, windows

pytestmark = [pytest.mark.model, pytest.mark.data]


def test_sparsegpt_is_below_wanda_and_second_moment_oats_below_oats(data, measured):
    loaded = load("smollm2")
    # Windows of a validation and of a test text: the second is held out.
    fitted_on, held_out = (
        windows(encode(loaded.tokenizer, text.read_text()[:9000]), 128, 6)
        for text in (data / "wikitext2_raw" / f"wiki.{split}.raw" for split in ("valid", "test"))
    )
    names = ("sparsegpt", "wanda", "oats-moment", "oats")
    found = moment_layers.layers(
        loaded.model,
        {name: METHODS[name]() for name in names},
        fitted_on,
        held_out,
        "layers.2.self_attn.*",
        lambda _: None,
    )
    assert len(found) == 4
    worst = []
    for better, worse in (("sparsegpt", "wanda"), ("oats-moment", "oats")):
        errors = [{e.method: e for e in layer.errors} for layer in found]
        fitted = [e[better].calibration / e[worse].calibration for e in errors]
        others = [e[better].held_out / e[worse].held_out for e in errors]
        line = f"{min(fitted):.2f} to {max(fitted):.2f}, held out to {max(others):.2f}"
        measured(f"output error of {better} over {worse}, 4 linears", line, "below 1 as calibrated")
        worst.append(max(fitted))
    assert max(worst) < 1
