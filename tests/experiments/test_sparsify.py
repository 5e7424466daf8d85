"""`ctr sparsify`: a recipe from a command line, and what it says of itself."""

import json
from pathlib import Path

import pytest
import tiny
import torch

from bridge.decode.recipe import Recipe
from bridge.decode.sparsified import sparsified
from experiments import measure
from mech.load import load

SMALL = ("--context", 32, "--calibration", 3, "--windows", 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny.tiny_llama(folder)
    return folder


@pytest.fixture
def ctr(here, tmp_path, model):
    """Gives the result and what was printed, or the line on standard error."""
    tiny.random_text(tmp_path / "a.txt", 0)

    def run(command: str, *arguments):
        out = f"out-{command}"
        done = here(command, model, *arguments, "--text", "a.txt", "--out", out)
        if done.returncode:
            return done.stderr
        return json.loads((tmp_path / out / "result.json").read_text()), done.stdout

    return run


def test_a_recipe_is_fitted_judged_and_saved(ctr, tmp_path, model):
    """And `ctr perplexity` reads with it."""
    found, said = ctr(
        "sparsify", "recipe", "--sparsity", 0.6, "--alpha", 0.8, "--factors", "moment",
        "--head", *SMALL,
    )  # fmt: skip
    result = found["result"]
    assert result["linears"] == 15
    assert result["budget"] == pytest.approx(0.4)
    names = ["dense", "the recipe", "its channels alone", "random channels, as many numbers"]
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == names
    assert rows[names[0]]["nll"]["mean"] == 0
    assert all(row["nll"]["n"] == 3 for row in rows.values())
    # On other text than the thresholds are of, and factors are read for what is left out only.
    assert rows[names[1]]["read"] == pytest.approx(0.4, abs=0.04)
    assert rows[names[2]]["read"] < rows[names[1]]["read"]
    assert rows[names[3]]["read"] == pytest.approx(0.4, abs=0.02)
    assert "random channels cost" in said
    recipe = Recipe.load(tmp_path / "recipe")
    assert recipe.provenance["config"]["sparsity"] == 0.6
    assert recipe.provenance["inputs"]["text_sha256"] == found["inputs"]["text_sha256"]

    loaded = load(str(model))
    ids = torch.arange(3, 35)[None]
    with sparsified(loaded.model, recipe, sparse_from=0.0), torch.no_grad():
        logits = loaded.model(ids).logits
    recipe.check(loaded.model)
    assert not torch.equal(loaded.model(ids).logits, logits)

    short = ("--context", 32, "--stride", 16)
    sparse, said = ctr("perplexity", "--recipe", "recipe", "--sparse-from", 0.5, *short)
    assert sparse["result"]["sparse"]["linears"] == 15
    assert sparse["result"]["sparse"]["tokens"] == pytest.approx(0.5, abs=0.02)
    assert "Decoded by the recipe recipe" in said.replace("\n", " ")


def test_a_plan_from_a_file(ctr, tmp_path):
    name = "layers.1.mlp.up_proj"
    (tmp_path / "plan.json").write_text(json.dumps({"plan": {name: {"sparsity": 0.25}}}))
    found, _ = ctr("sparsify", "recipe", "--plan", "plan.json", "--rounds", 0, *SMALL)
    assert found["result"]["linears"] == 1
    assert found["result"]["budget"] == 0.75
    assert list(Recipe.load(tmp_path / "recipe").plan) == [name]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--sparsity", 1.5), "--sparsity 1.5"),
        (("--sparse-from", 1), "--sparse-from 1"),
        (("--plan", "none.json"), "cannot read none.json"),
        (("--plan", "a.txt"), "a.txt is no plan"),
        (("--plan", "list.json"), "list.json is no plan"),
        (("--plan", "wrong.json"), "no linear called 'layers.9.x'"),
        (("--plan", "deep.json"), "deep.json is no plan"),
        (("--plan", "nothing.json"), "nothing.json is no plan: it names no linear"),
        (("--plan", "pca.json"), "pca.json: layers.0.x: factors 'pca'"),
        (("--plan", "nan.json"), "nan.json: layers.0.x: sparsity nan"),
        (("--plan", "number.json"), "number.json: layers.0.x: 0.5 is no plan of a linear"),
        (("--sparse-from", 0.97), "--sparse-from 0.97"),
        (("a.txt",), "OUT a.txt exists"),
    ],
)
def test_what_cannot_be_done_is_one_line(ctr, tmp_path, options, said):
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "wrong.json").write_text('{"layers.9.x": {"sparsity": 0.5}}')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "nothing.json").write_text("{}")
    (tmp_path / "pca.json").write_text('{"layers.0.x": {"sparsity": 0.5, "factors": "pca"}}')
    (tmp_path / "nan.json").write_text('{"layers.0.x": {"sparsity": NaN}}')
    (tmp_path / "number.json").write_text('{"layers.0.x": 0.5}')
    line = ctr("sparsify", *options, *SMALL)
    assert said in line
    assert line.count("\n") == 1


def test_a_share_without_a_recipe_is_no_question(ctr):
    short = ("--context", 32, "--stride", 16)
    assert "--sparse-from 0.5: give a --recipe" in ctr("perplexity", "--sparse-from", 0.5, *short)


def test_a_recipe_of_another_model_is_refused(ctr, tmp_path, model):
    loaded = load(str(model)).model
    with torch.no_grad():
        loaded.get_parameter("model.layers.0.mlp.up_proj.weight").mul_(2)
    other = tmp_path / "other"
    loaded.save_pretrained(other)
    ctr("sparsify", "recipe", *SMALL)
    for file in model.iterdir():
        if not (other / file.name).exists():
            (other / file.name).write_bytes(file.read_bytes())
    again = load(str(other))
    assert measure.longest(again.model) == 80
    recipe = Recipe.load(tmp_path / "recipe")
    with pytest.raises(ValueError, match="the recipe is of other weights"):
        recipe.check(again.model)
    (tmp_path / "recipe" / "tensors.safetensors").write_bytes(b"short")
    line = ctr("perplexity", "--recipe", "recipe", "--context", 32, "--stride", 16)
    assert "tensors.safetensors is not the file that was saved: write the recipe again" in line
