"""Code on the other pages runs, with the names that a page leaves to its reader.

What a page leaves open (`model`, `batches`, `weight` …) is a tiny model and what belongs to it. The
tour and the task pages leave nothing open: `test_pages`.
"""

import copy
import re
from typing import Any

import pytest
import torch
from shown import PAGES, WHOLE, blocks

from bridge.compress import compress
from bridge.methods import GPTQ, OATS
from bridge.quantizers import RoundToNearest
from mech.load import load
from mech.probes.sinks import score
from mech.tokens import encode, windows

OTHERS = [
    page
    for page in PAGES
    if page not in WHOLE and any(block.language == "python" for block in blocks(page))
]
README_IS_ELSEWHERE = {"README.md"}
"""tests/test_readme.py runs it on the demo model, whose numbers it states."""
COMPRESSED = {
    "checkpoints.md": OATS(compression=0.5),
    "interventions.md": OATS(compression=0.5),
    "sparse-codes.md": GPTQ(RoundToNearest(bits=4, group=16)),
}
"""Pages that begin with a model that is compressed already."""
COMPILED_ONLY = {
    "components.md": "a random model has no sink heads to narrow: tests/bridge/test_sink_heads.py",
}
STANDS_FOR = ((r'"(?:smollm2|path/to/model)"', "the model"), (r"layers\.4\.", "layers.1."))
"""Names of the pages' own model; the tiny one has two layers."""


@pytest.fixture(scope="module")
def loaded(model_folder):
    return load(str(model_folder))


def supplied(loaded, place) -> dict[str, Any]:
    """What the pages take from their reader."""
    from bridge.decode.inputs import calibrate
    from bridge.decode.plan import Setting
    from bridge.decode.recipe import fit
    from bridge.decode.rows import coded
    from bridge.decode.sparsified import sparsified
    from bridge.equal import shapes_of
    from bridge.fold import folded
    from bridge.sites import linears
    from bridge.sites import place as put

    model = copy.deepcopy(loaded.model)
    model.generation_config.max_new_tokens = 4
    text = (place / "wiki.txt").read_text()
    ids = windows(encode(loaded.tokenizer, text), 64, 8)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 32, generator=generator)
    batches = ids.split(4)
    plan = dict.fromkeys(linears(model), Setting(sparsity=0.5))
    return {
        "model": model,
        "tokenizer": loaded.tokenizer,
        "batches": batches,
        "calibration": batches,
        "tokens": ids,
        "ids": ids[:1, :16],
        "prompt": ids[:1, :16],
        "read": lambda block: score(block.received),
        "calibration_text": text,
        "other_text": text,
        "shapes": {name: tuple(linear.weight.shape) for name, linear in linears(model).items()},
        "matrices": shapes_of(model),
        "mlps": [f"layers.{layer}.mlp" for layer in range(2)],
        "recipe": fit(model, plan, calibrate(model, batches)),
        "coded": coded,
        "folded": folded,
        "place": put,
        "sparsified": sparsified,
        "weight": weight,
        "d_out": 48,
        "x": torch.randn(1, 32, generator=generator),
        "threshold": torch.full((32,), 0.5),
        "down": torch.randn(32, 3, generator=generator),
        "up": torch.randn(3, 48, generator=generator),
        "bias": torch.randn(48, generator=generator),
        "torch": torch,
    }


def recipe_of_dense(own: dict[str, Any]) -> Any:
    """A recipe of the compressed model's weights, as the dense form has them."""
    from bridge.decode.inputs import calibrate
    from bridge.decode.recipe import fit

    dense = copy.deepcopy(own["model"])
    own["place"](dense, own["folded"](dense))
    return fit(dense, own["recipe"].plan, calibrate(dense, own["batches"]))


@pytest.mark.parametrize(
    "page", [p for p in OTHERS if p.name not in README_IS_ELSEWHERE], ids=lambda p: p.stem
)
def test_the_code_of_a_page_runs(page, loaded, place, model_folder, monkeypatch):
    if page.name in COMPILED_ONLY:
        for block in blocks(page):
            compile(block.code, str(page), "exec")
        return
    monkeypatch.setattr("sys.argv", ["page.py", "wiki.txt"])
    names: dict[str, object] = {"__name__": page.stem}
    names |= (own := supplied(loaded, place))
    if method := COMPRESSED.get(page.name):
        compress(own["model"], method, own["batches"])
        names["recipe"] = recipe_of_dense(own)  # its page decodes the model made dense again
    for block in blocks(page):
        if block.language != "python":
            continue
        code = block.code
        for pattern, stands in STANDS_FOR:
            code = re.sub(pattern, stands.replace("the model", repr(str(model_folder))), code)
        exec(compile("\n" * block.line + code, str(page), "exec"), names)
