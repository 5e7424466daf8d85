"""Every question of the command line on its smallest sizes: one whole answer each."""

import json

import pytest
from command import SMALL, answered, expect_refused
from safetensors.torch import load_file
from tiny import ENGLISH


def test_probe(ctr, model, tmp_path):
    done = ctr("probe", model, "--sequences", 2, "--seq", 64, "--out", "run")
    result = answered(done, tmp_path / "run")
    assert result["inputs"]["first_ids"][0] == 1
    assert "prepended <s>" in result["inputs"]["bos"]
    assert result["inputs"]["kernels"] == {"hard_threshold": "cpu", "sink_mass": "cpu"}
    assert result["result"]["heads"] == 8
    # Uniform attention makes a sink of no token at 64 tokens or more.
    assert result["result"]["first"]["n"] == 2


@pytest.mark.parametrize("prompt", ["the of a and", "the " * 60])
def test_a_prompt_without_sinks_is_answered(here, model, tmp_path, prompt):
    done = here(
        "probe", model, "--prompt", prompt, "--epsilon", 0.99, "--sequences", 2, "--seq", 64,
        "--out", "run",
    )  # fmt: skip
    assert answered(done, tmp_path / "run")["result"]["prompt"]["caught"] is None
    assert "nothing to colour" in done.stdout


def test_perplexity_of_random_weights_is_near_the_vocabulary(ctr, model, tmp_path):
    text = tmp_path / "a.txt"
    text.write_text(" ".join(ENGLISH[2:]) * 40)
    done = ctr("perplexity", model, "--text", text, "--context", 64, "--stride", 32, "--out", "run")
    result = answered(done, tmp_path / "run")
    assert result["result"]["ppl"] == pytest.approx(len(ENGLISH), rel=0.2)
    assert "each token scored once" in result["result"]["definition"]
    assert result["result"]["definition"] in done.stdout.replace("\n", " ")


def test_compress_and_save(ctr, model, tmp_path):
    done = ctr(
        "compress", model, "--method", "wanda", "--sparsity", 0.5, *SMALL,
        "--out", "run", "--save", tmp_path / "saved",
    )  # fmt: skip
    result = answered(done, tmp_path / "run")["result"]
    assert result["weights"]["linears"] == 14
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    matrix = saved["model.layers.1.mlp.down_proj.weight"]
    assert int(matrix.count_nonzero()) == matrix.numel() // 2
    again = ctr("perplexity", tmp_path / "saved", "--tokens", 500, "--context", 64, "--stride", 63)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("form", ["dense", "base+lora", "packed"])
def test_compress_in_every_form(here, model, tmp_path, form):
    done = here(
        "compress", model, "saved", "--form", form, "--method", "oats", "--rank-ratio", 0.5,
        "--iterations", 4, *SMALL, "--out", "run", "--shards", "blocks",
    )  # fmt: skip
    result = answered(done, tmp_path / "run")["result"]
    stored = result["stored"]
    files = (tmp_path / "saved").rglob("*.safetensors")
    assert stored["bytes"] == sum(file.stat().st_size for file in files)
    manifest = json.loads((tmp_path / "saved" / "manifest.json").read_text())
    assert manifest["form"] == stored["form"] == form
    assert manifest["provenance"]["rows"].keys() == manifest["layers"].keys()
    assert len(manifest["provenance"]["calibration"]["sha256"]) == 64
    told = here("verify", "saved")
    assert told.returncode == 0, told.stderr
    assert "layers.1.mlp.down_proj" in told.stdout
    if form != "base+lora":
        again = here("perplexity", "saved", "--tokens", 500, "--context", 64, "--stride", 63)
        assert again.returncode == 0, again.stderr
    if form == "packed":
        kept = sum(layer["kept"] for layer in manifest["layers"].values())
        assert kept == result["weights"]["kept"]
    next((tmp_path / "saved").rglob("*.safetensors")).write_bytes(b"")
    expect_refused(here("verify", "saved"), "is not the file that was saved")


def test_the_change_of_a_matrix_in_other_coordinates_is_not_printed(here, model, tmp_path):
    """A3 turns and shrinks heads: W - Ŵ is large, and says nothing."""
    for name, select, shown in (("run", "*", False), ("mlp", "*.mlp.*", True)):
        done = here("compress", model, "--method", "a3", "--select", select, *SMALL, "--out", name)
        weights = answered(done, tmp_path / name)["result"]["weights"]
        assert weights["comparable"] == shown
        row = [line for line in done.stdout.splitlines() if line.startswith("a3 ")][-1].split()
        assert (row[-4:-2] == ["–", "–"]) != shown, row
        assert ("in other coordinates" in done.stdout) != shown


def test_terms(ctr, model, tmp_path):
    done = ctr("terms", model, *SMALL, "--iterations", 4, "--rank-ratio", 0.5, "--out", "run")
    result = answered(done, tmp_path / "run")["result"]
    assert result["linears"] == 4
    # Dense; eight of the terms, three of the directions, and five of the amount.
    assert len(result["found"]) == len(result["removed"]) == len(result["recalls"]) == 17
    assert len(result["contrasts"]) == 8


def test_terms_of_some_heads(here, model, tmp_path):
    """The second head's columns of W_O in the first layer, and nothing else."""
    done = here(
        *("terms", model, *SMALL, "--iterations", 4, "--rank-ratio", 0.5, "--out", "run"),
        *("--select", "*.self_attn.*", "--projections", "o", "--layers", 0, "--heads", 1),
        *("--questions", "terms"),
    )
    result = answered(done, tmp_path / "run")["result"]
    assert result["linears"] == 1
    assert result["removed"]["both off: zero"] < 0.6
    assert 0 < result["removed"]["low rank off: OATS' sparse term alone"] < 0.6


def test_terms_by_head_and_by_layer(here, model, tmp_path):
    """Two key heads with all four terms, two layers with two; the groups differ."""
    small = ("--iterations", 4, "--rank-ratio", 0.5, *SMALL)
    by_head = ("--by", "head", "--select", "*.self_attn.*", "--left", "sparse", "low", "neither")
    done = here("experiment", "toggles", model, *small, *by_head, "--out", "head")
    rows = answered(done, tmp_path / "head")["result"]["rows"]
    assert [row["group"] for row in rows] == ["key head 0"] * 3 + ["key head 1"] * 3
    # Every matrix is zero in its half of the heads: together they are what there is.
    gone = [row["removed"] for row in rows if row["left"] == "neither"]
    assert sum(gone) == pytest.approx(1, abs=1e-5)
    assert min(gone) > 0.2
    done = here("experiment", "toggles", model, *small, "--by", "layer", "--out", "layer")
    result = answered(done, tmp_path / "layer")["result"]
    assert [row["group"] for row in result["rows"]] == ["layer 0"] * 2 + ["layer 1"] * 2
    assert len(result["differences"]) == 2


def test_oats_both_ways(here, model, tmp_path):
    """At full rank ratio and a few iterations the numbers are there and are not swapped."""
    few = ("--select", "layers.1.mlp.*", "--calibration", 2, "--accelerations", 4, 2, "--side", 40)
    done = here("oats", model, *few, "--out", "run")
    result = answered(done, tmp_path / "run")["result"]
    found = result["matrices"]
    assert [m["shape"] for m in found] == [[48, 32], [48, 32], [32, 48]]
    for m in [*found, result["large"]]:
        errors = [run["scaled"] for run in m["fast"]]
        assert 0 < max(errors) <= 1.001 * m["definition"]["scaled"] < 1
        assert all(0 < run["floor"] < run["seconds"] for run in m["fast"])
        assert m["definition"]["seconds"] > m["fast"][0]["seconds"] / 10
    assert all(m["name"].startswith("layers.1.mlp") for m in found)
    assert all(m["control"]["scaled"] > m["definition"]["scaled"] for m in found)
    assert "With 20 iterations" in done.stdout


def test_reconstruction(here, model, tmp_path):
    few = ("--select", "layers.*", "--few", "layers.1.*.k_proj", "--tokens", 16, 40)
    sizes = ("--calibration", 2, "--held-out", 2, "--context", 64, "--rank", 4, "--group", 16)
    done = here("experiment", "reconstruction", model, *few, *sizes, "--out", "run")
    result = answered(done, tmp_path / "run")["result"]
    assert len(result["rows"]) == 14 * 11
    assert len(result["few"]) == 2 * 3
    assert "QERA-approximate on 14 of 14 linears" in done.stdout
    sized = here("experiment", "reconstruction", model, "--tokens", 5000)
    expect_refused(sized, "--tokens 5000")


def test_demo(here, model, tmp_path):
    """The whole page on the smallest sizes."""
    done = here(
        "demo", model, *SMALL, "--seeds", 2, "--steps", 40, "--inputs", 50, "--iterations", 4,
        "--out", "run",
    )  # fmt: skip
    result = answered(done, tmp_path / "run")["result"]
    assert [w["method"] for w in result["weights"]] == ["magnitude", "wanda", "oats"]
    assert result["compressed"][0]["nll"]["mean"] == 0
    page = (tmp_path / "run" / "report.html").read_text()
    for title in ("In short", "The theorem holds", "Which term carries the sinks"):
        assert f"<h2>{title}</h2>" in page


def test_toy_verify(ctr, tmp_path):
    done = ctr(
        "toy", "verify", "--cases", 100, "--random", 100, "--adversarial", 10, "--agreement", 20
    )
    found = answered(done, tmp_path / "out" / "toy-verify")["result"]["found"]
    assert found["bound"]["violations"] == 0
    assert found["agreement"]["worst"] < 1e-12
    assert all(refusal["name"] for refusal in found["refusals"])


def test_toy_train(ctr, tmp_path):
    done = ctr("toy", "train", "--seeds", 3, "--steps", 80, "--out", "run")
    result = answered(done, tmp_path / "run")["result"]
    assert len(result["diagnosis"]["found"]) == 3
