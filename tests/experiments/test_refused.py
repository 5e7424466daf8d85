"""One clear line for what cannot be answered, before the work, and nothing left behind."""

import shutil
from pathlib import Path

import pytest
from command import SMALL, expect_refused
from safetensors.torch import load_file, save_file


def test_an_unknown_command_is_told_the_nearest(ctr):
    expect_refused(ctr("prob"), "'prob'", "did you mean probe or")
    expect_refused(ctr("experiment", "limit"), "'experiment limit'", "mean experiment limits or")


def test_an_unknown_option_is_one_clause_on_an_ascii_terminal(ctr):
    done = ctr("toy", "certify", "--wdith", 1, PYTHONIOENCODING="ascii", LC_ALL="C")
    expect_refused(done, "error: Unrecognized options: --wdith, 1; did you mean --width")
    assert "---" not in done.stderr


def test_a_form_needs_a_folder_and_only_one(here, model):
    expect_refused(here("compress", model, "--form", "packed"), "--form packed", "OUT")
    expect_refused(here("compress", model, "a", "--save", "b"), "OUT a and --save b")
    expect_refused(here("compress", model, "a", "--form", "zip"), "zip")


def test_what_cannot_be_saved_is_refused_before_the_work(here, model, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    before = sorted(path.name for path in tmp_path.iterdir())
    expect_refused(here("compress", model, "link"), "OUT link exists")
    expect_refused(here("compress", model, "file/model"), "file", "no folder")
    expect_refused(here("compress", model, "a", "--shards", "a"), "--shards a", "OUT a")
    expect_refused(here("compress", model, "a", "--shards", "a/b"), "--shards a/b", "OUT a")
    expect_refused(
        here("compress", model, "a", "--method", "wanda", "--form", "base+lora"), "wanda", "adapter"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_terms_refuses_a_choice_of_nothing(here, model):
    done = here("terms", model, *SMALL, "--layers", 7)
    expect_refused(done, "layers (7,)")
    assert "dense" not in done.stderr


def test_unknown_model(here, tmp_path):
    expect_refused(here("probe", "smolm2"), "smolm2", "smollm2")
    assert not (tmp_path / "out" / "probe").exists()


def test_hub_name_offline(here):
    expect_refused(here("perplexity", "somebody/some-model"), "somebody/some-model", "folder")


def damaged(model: Path, to: Path) -> Path:
    shutil.copytree(model, to)
    return to


def test_folder_without_tokenizer(here, model, tmp_path):
    folder = damaged(model, tmp_path / "m")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    expect_refused(here("probe", folder), "tokenizer")


def test_truncated_safetensors(here, model, tmp_path):
    file = damaged(model, tmp_path / "m") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    expect_refused(here("perplexity", tmp_path / "m"), "model.safetensors")


def test_a_nan_weight_is_named_with_its_layer(here, model, tmp_path):
    file = damaged(model, tmp_path / "m") / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    expect_refused(here("perplexity", tmp_path / "m"), "layers.1.mlp.up_proj", "block 1")


def test_an_empty_prompt(here, model):
    expect_refused(here("probe", model, "--prompt", "", "--sequences", 2), "--prompt", "empty")


@pytest.mark.parametrize("sparsity", [0, 1, -0.5, 1.5, "nan"])
def test_sparsity_outside_0_1(here, model, sparsity):
    expect_refused(here("compress", model, "--sparsity", sparsity), "sparsity", "(0, 1)")


def test_an_unknown_method_is_told_the_nearest(here, model):
    expect_refused(here("compress", model, "--method", "wonda"), "wonda", "wanda")


def test_a_glob_that_matches_nothing(here, model):
    done = here("compress", model, "--select", "layers.9.*", *SMALL)
    expect_refused(done, "layers.9.*", "layers.1")


def test_an_output_folder_with_another_run(here, model, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{}")
    expect_refused(here("perplexity", model, "--out", "run"), "another run", "--replace")
    assert (tmp_path / "run" / "result.json").read_text() == "{}"


def test_a_text_that_is_too_short(here, model, tmp_path):
    (tmp_path / "a.txt").write_text("the of a and is")
    expect_refused(here("probe", model, "--text", tmp_path / "a.txt"), "tokens")


def test_a_model_is_not_saved_where_it_would_be_lost(here, model, tmp_path):
    """The run's folder is replaced when it is done, and a taken one is refused at once."""
    expect_refused(
        here("compress", model, "--out", "run", "--save", "run/model"), "--save", "--out"
    )
    (tmp_path / "taken").mkdir()
    expect_refused(here("compress", model, "--save", "taken"), "--save taken exists")
    expect_refused(here("compress", model, "taken"), "OUT taken exists")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--sequences", 1),
        ("--seq", 63),
        ("--seq", 513),
        ("--epsilon", -1),
        ("--epsilon", "nan"),
        ("--prompt", "the"),
        ("--prompt", "the " * 600),
        ("--prompt-file", "missing.txt"),
        ("--nonsense", 1),
        ("--seq", "x"),
        ("--bos", "maybe"),
    ],
)
def test_probe_names_the_option_that_cannot_be(here, model, tmp_path, option, value):
    expect_refused(here("probe", model, option, value), option)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"), [("--windows", 1), ("--seq", 10), ("--context", 2), ("--calibration", 0)]
)
def test_compress_names_the_option_that_cannot_be(here, model, option, value):
    expect_refused(here("compress", model, option, value), option)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seeds", 0),
        ("--steps", 0),
        ("--steps", 41),
        ("--sequences", 1),
        ("--seed", -1),
        ("--learning-rate", 0),
        ("--learning-rate", "nan"),
    ],
)
def test_toy_train_names_the_option_that_cannot_be(here, option, value):
    expect_refused(here("toy", "train", option, value), option)


@pytest.mark.parametrize("option", ["--cases", "--random", "--adversarial", "--agreement"])
def test_the_theorem_is_not_verified_on_nothing(here, option):
    expect_refused(here("toy", "verify", option, 0), option)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--iterations", 0), ("--inputs", 0), ("--steps", 41), ("--seq", 63)],
)
def test_the_demo_refuses_before_it_works(here, model, option, value):
    done = here("demo", model, option, value)
    expect_refused(done, option.strip("-"))
    assert "train" not in done.stderr.replace("ctr: error: --steps", "")


def test_terms_refuses_a_glob_before_it_measures(here, model):
    done = here("terms", model, *SMALL, "--select", "nope")
    expect_refused(done, "nope")
    assert "dense" not in done.stderr


def test_bytes_that_are_no_text(here, model):
    expect_refused(here("probe", model, "--prompt", "a \udcff b"), "not UTF-8")


def test_a_store_that_is_no_store(here, monkeypatch, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "runs.sqlite").write_text("no database" * 100)
    expect_refused(here("runs"), "runs.sqlite", "not a database")
