"""Recipes on disk: what was saved or one line that says why not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bridge import manifest
from bridge.decode.inputs import calibrate
from bridge.decode.plan import Setting
from bridge.decode.recipe import Recipe, alike, fit, likeness
from bridge.decode.sparsified import sparsified
from bridge.sites import linears
from mech.errors import BadInput

NAME = "layers.1.mlp.down_proj"


@pytest.fixture
def recipe(llama, batches) -> Recipe:
    plan = dict.fromkeys(linears(llama), Setting(0.5, 0.8, "column", "moment"))
    found = fit(
        llama, plan | {"head": Setting(0.6)}, calibrate(llama, batches, head=True),
        provenance={"text": "of the test", "windows": 5},
    )  # fmt: skip
    return Recipe(**{**vars(found), "bias": {NAME: torch.ones(36)}})


@pytest.fixture
def folder(recipe, tmp_path) -> Path:
    return recipe.save(tmp_path / "recipe")


def test_what_is_loaded_is_what_was_saved(recipe, folder, llama, batches):
    again = Recipe.load(folder)
    assert again.plan == recipe.plan
    assert again.provenance == recipe.provenance
    for part in ("thresholds", "down", "up", "bias", "likeness"):
        said, found = getattr(recipe, part), getattr(again, part)
        assert found.keys() == said.keys()
        assert all(torch.equal(found[name], said[name]) for name in said), part
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    logits = []
    for one in (recipe, again):
        with sparsified(llama, one, sparse_from=0.0), torch.no_grad():
            logits.append(llama(batches[0]).logits)
    assert torch.equal(*logits)


def test_a_folder_that_exists_is_not_written_over(recipe, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(BadInput, match="exists"):
        recipe.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("file", ["recipe.json", "tensors.safetensors", "manifest.json"])
@pytest.mark.parametrize("harm", ["truncated", "changed", "missing", "empty"])
def test_harm_to_any_file_is_one_line_that_names_it(folder, file, harm):
    path = folder / file
    whole = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
        path.write_bytes({"truncated": whole[:-9], "changed": flipped, "empty": b""}[harm])
    with pytest.raises(BadInput) as caught:
        Recipe.load(folder)
    line = str(caught.value)
    assert file in line
    assert "\n" not in line
    assert "write the recipe again" in line or (file, harm) == ("manifest.json", "missing")


def resealed(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    manifest.write(folder, form="recipe")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"thresholds.{NAME}"), "damaged"),
        (lambda t: t.pop(f"up.{NAME}"), "damaged"),
        (lambda t: t.pop(f"likeness.{NAME}"), "damaged"),
        (lambda t: t.update({f"thresholds.{NAME}": torch.ones(7)}), "not \\(52,\\) numbers"),
        (lambda t: t[f"thresholds.{NAME}"].fill_(float("nan")), "thresholds are not"),
        (lambda t: t[f"down.{NAME}"].fill_(float("inf")), "down are not"),
        (lambda t: t.update({f"bias.{NAME}": torch.ones(2)}), "bias are not"),
        (lambda t: t.update({f"thresholds.{NAME}": torch.ones(52).half()}), "float32"),
        (lambda t: t.update({"strange": torch.ones(2)}), "damaged"),
        (lambda t: t.pop(f"down.{NAME}"), "damaged"),
        (lambda t: [t.pop(f"{part}.{NAME}") for part in ("down", "up")], "damaged"),
        (lambda t: t.update({f"down.{NAME}": t[f"down.{NAME}"][:, 1:].clone()}), "down are not"),
        (lambda t: t.update({f"up.{NAME}": t[f"up.{NAME}"].int()}), "up are not"),
        (lambda t: t.update({f"likeness.{NAME}": torch.ones(1)}), "which weight"),
        (lambda t: t.update({f"likeness.{NAME}": torch.tensor(3.0)}), "which weight"),
        (lambda t: t[f"likeness.{NAME}"].fill_(float("nan")), "which weight"),
        (lambda t: t.update({"thresholds.layers.7.x": torch.ones(2)}), "layers.7.x has tensors"),
    ],
)
def test_tensors_that_do_not_go_together_are_refused(folder, change, said):
    """Sealed anew, as whoever edits a recipe by hand would."""
    tensors = load_file(folder / "tensors.safetensors")
    change(tensors)
    save_file(tensors, folder / "tensors.safetensors")
    resealed(folder)
    with pytest.raises(BadInput, match=said):
        Recipe.load(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda j: j.update(format=99), "another version"),
        (lambda j: j.pop("plan"), "damaged"),
        (lambda j: j["plan"][NAME].update(sparsity=1.5), "sparsity 1.5"),
        (lambda j: j["plan"][NAME].update(rule="largest"), "rule 'largest'"),
        (lambda j: j["plan"][NAME].update(more=1), f"{NAME}: .* is no plan of a linear"),
        (lambda j: j["plan"][NAME].update(sparsity=float("nan")), f"{NAME}: sparsity nan"),
        (lambda j: j["plan"][NAME].update(factors=["pca"]), f"{NAME}: factors \\['pca'\\]"),
        (lambda j: j.update(plan={}), "plans no linear"),
        (lambda j: j.update(provenance=3), "damaged"),
        (lambda j: j["plan"].update({"layers.7.x": j["plan"][NAME]}), "damaged"),
    ],
)
def test_plans_that_nobody_made_are_refused(folder, change, said):
    content = json.loads((folder / "recipe.json").read_text())
    change(content)
    (folder / "recipe.json").write_text(json.dumps(content))
    resealed(folder)
    with pytest.raises(BadInput, match=said):
        Recipe.load(folder)


def test_brackets_without_end_are_no_recipe(folder):
    (folder / "recipe.json").write_text("[" * 100_000)
    resealed(folder)
    with pytest.raises(BadInput, match="cannot be read"):
        Recipe.load(folder)


def test_a_place_that_is_no_recipe_is_named(folder, tmp_path):
    with pytest.raises(BadInput, match="nowhere is no folder of a recipe"):
        Recipe.load(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"holds no recipe; .*recipe may"):
        Recipe.load(tmp_path)


def test_a_saved_model_is_no_recipe(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    manifest.write(folder, form="dense")
    with pytest.raises(BadInput, match="a model, not a recipe"):
        Recipe.load(folder)


def test_another_model_is_refused_and_left_alone(recipe, families):
    other = families["llama"]()
    with torch.no_grad():
        other.model.layers[2].mlp.down_proj.weight.mul_(1.02)
    before = manifest.content_hash(other)
    said = r"layers\.2\.mlp\.down_proj: the recipe is of other weights"
    with pytest.raises(BadInput, match=said), sparsified(other, recipe):
        pass
    assert manifest.content_hash(other) == before
    with pytest.raises(BadInput, match="no linear called"), sparsified(families["phi3"](), recipe):
        pass
    with pytest.raises(BadInput, match="the recipe is of other weights"):
        recipe.check(families["mistral"]())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_recognised_in_other_formats_and_others_are_not(dtype, generator):
    weight = torch.randn(33, 57, generator=generator) * 1e-3
    assert alike(likeness(weight.to(dtype)), likeness(weight))
    assert alike(likeness(weight.to(dtype).mT.contiguous().mT), likeness(weight))
    assert not alike(likeness(weight.mT), likeness(weight))
    assert not alike(likeness(weight * 1.02), likeness(weight))
    moved = weight + 0.02 * weight.std() * torch.randn(33, 57, generator=generator)
    assert not alike(likeness(moved), likeness(weight))
    pruned = weight * (weight.abs() > weight.abs().median())
    assert not alike(likeness(pruned), likeness(weight))


SAVES = """
import sys, torch
from pathlib import Path
from bridge.decode.plan import Setting
from bridge.decode.recipe import Recipe
n = 100
plan = {str(i): Setting(0.5) for i in range(n)}
vectors = {name: torch.ones(20000) for name in plan}
likeness = {name: torch.tensor([5.0, 20000.0, 1.0]) for name in plan}
recipe = Recipe(plan, vectors, {}, {}, likeness)
print("ready", flush=True)
for i in range(10**6):
    recipe.save(Path(sys.argv[1]) / str(i))
"""


def test_killed_while_it_writes_leaves_whole_recipes_only(recipe, tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", SAVES, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    half: list[Path] = []
    while not (half and len(os.listdir(tmp_path)) > 1):
        half = list(tmp_path.glob(".*.partial-*"))
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    written = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert written
    for path in written:
        assert len(Recipe.load(path).plan) == 100
    # What the kill left is removed by the next save to that place.
    for path in tmp_path.glob(".*.partial-*"):
        recipe.save(tmp_path / path.name.split(".")[1])
    assert not list(tmp_path.glob(".*"))
