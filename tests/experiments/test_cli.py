"""The command, as a user types it: answers, and one clear line for what cannot be answered."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from experiments import cli, report
from experiments.progress import paper

CTR = Path(sys.executable).parent / "ctr"
WORDS = ["<unk>", "<s>", *(f"w{i}" for i in range(60)), "the", "of", "a", "and", "is"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny random Llama with a tokenizer, as save_pretrained writes them."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(WORDS),
        max_position_embeddings=512,
        bos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def ctr(tmp_path):
    """Run the command in an empty folder, with a store and a cache of its own."""

    def run(*arguments, **environment) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [CTR, *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "CTR_STORE": str(tmp_path / "store" / "runs.sqlite"),
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                **environment,
            },
        )

    return run


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """The same command inside this process: quick, for what is refused before any real work."""

    def run(*arguments) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CTR_STORE", str(tmp_path / "store" / "runs.sqlite"))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setattr(sys, "argv", ["ctr", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


SMALL = ("--windows", 3, "--context", 32, "--sequences", 2, "--seq", 64, "--calibration", 2)


def answered(done: subprocess.CompletedProcess[str], out: Path) -> dict:
    """The stored result of a run that must have gone well."""
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    page = (out / "report.html").read_text()
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    pictures = sorted(p.name for p in out.glob("pictures/*"))
    assert len([p for p in pictures if p.endswith(".svg")]) * 2 == len(pictures)
    return result


def expect_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line that names what is wrong, exit code 2, and no folder left behind."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("ctr: error:")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


def test_overview_lists_every_command(ctr):
    done = ctr("--help")
    assert done.returncode == 0
    for name, command in {**cli.COMMANDS, **cli.TOOLS}.items():
        assert f"ctr {name}" in done.stdout
        assert command.example in done.stdout


def test_the_overview_tells_pictures_of_the_theory_from_models(here):
    told = here("experiment").stdout
    models, pictures = told.index("language models:"), told.index("Pictures of the theory:")
    for name in cli.COMMANDS:
        if name.startswith("experiment "):
            theory = name not in cli.LISTED["Experiments on language models"]
            assert (told.index(f"\n  ctr {name} ") > pictures) == theory
            assert told.count(f"\n  ctr {name} ") == 1
    assert models < pictures
    assert "ctr toy" not in told
    assert "Tools" not in told


def test_every_command_has_help_with_its_example(ctr):
    for name, command in {**cli.COMMANDS, **cli.TOOLS}.items():
        done = ctr(*name.split(), "--help")
        assert done.returncode == 0, done.stderr
        squeezed = " ".join(done.stdout.replace("│", " ").split())
        assert " ".join(command.example.split()) in squeezed, name


def test_a_reader_that_stops_reading_is_no_error():
    done = subprocess.run(
        f"{CTR} probe --help | head -1", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""


def test_an_unknown_command_is_told_the_nearest(ctr):
    expect_refused(ctr("prob"), "'prob'", "did you mean probe?")
    expect_refused(ctr("experiment", "limit"), "'experiment limit'", "mean experiment limits")


def test_an_unknown_option_is_one_clause_on_an_ascii_terminal(ctr):
    done = ctr("toy", "certify", "--wdith", 1, PYTHONIOENCODING="ascii", LC_ALL="C")
    expect_refused(done, "error: Unrecognized options: --wdith, 1; did you mean --width")
    assert "---" not in done.stderr


def test_probe(ctr, model, tmp_path):
    done = ctr("probe", model, "--sequences", 2, "--seq", 64, "--out", "run")
    result = answered(done, tmp_path / "run")
    assert result["inputs"]["first_ids"][0] == 1
    assert "prepended <s>" in result["inputs"]["bos"]
    assert result["inputs"]["kernels"] == {"hard_threshold": "cpu", "sink_mass": "cpu"}
    assert result["result"]["heads"] == 8
    # Uniform attention makes a sink of no token at 64 tokens or more.
    assert result["result"]["first"]["n"] == 2


def test_perplexity_of_random_weights_is_near_the_vocabulary(ctr, model, tmp_path):
    text = tmp_path / "a.txt"
    text.write_text(" ".join(WORDS[2:]) * 40)
    done = ctr("perplexity", model, "--text", text, "--context", 64, "--stride", 32, "--out", "run")
    result = answered(done, tmp_path / "run")
    assert result["result"]["ppl"] == pytest.approx(len(WORDS), rel=0.2)
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


def test_terms_refuses_a_choice_of_nothing(here, model):
    done = here("terms", model, *SMALL, "--layers", 7)
    expect_refused(done, "layers (7,)")
    assert "dense" not in done.stderr


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


def test_runs_are_stored_and_exported(ctr, model, tmp_path):
    for out in ("one", "two"):
        assert ctr("perplexity", model, "--tokens", 200, "--out", out).returncode == 0
    rows = json.loads(ctr("runs", "--json").stdout)
    assert [row["id"] for row in rows] == [1, 2]
    row = rows[0]
    assert row["config"]["context"] == 512
    assert len(row["inputs"]["model_sha256"]) == 64
    assert len(row["inputs"]["text_sha256"]) == 64
    assert row["versions"]["torch"]
    assert row["peak_bytes"] > 0
    assert "ctr perplexity" in ctr("runs").stdout


def test_doctor_names_what_is_there(ctr):
    done = ctr("doctor")
    for word in ("torch", "hard_threshold on cpu", "demo model", "run store"):
        assert word in done.stdout


def test_doctor_says_what_would_fail(ctr, tmp_path):
    done = ctr("doctor", CTR_DATA=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "fails" in done.stdout


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


def test_an_answer_outlives_its_reader_and_its_store(model, tmp_path):
    """The page stands although nobody reads standard output and no row can be written."""
    done = subprocess.run(
        f"{CTR} perplexity {model} --tokens 200 --out run | true",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "CTR_STORE": "/dev/null/x", "OMP_NUM_THREADS": "1"},
    )
    assert "Traceback" not in done.stderr
    assert "not stored" in done.stderr
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["report.html", "result.json"]


def test_standard_output_that_is_full_does_not_take_the_answer(tmp_path):
    """What was asked stands in its folder, and the line says so."""
    done = subprocess.run(
        f"{CTR} toy certify --T 3 --t 2 --out run > /dev/full",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "CTR_STORE": str(tmp_path / "s.sqlite")},
    )
    expect_refused(done, "standard output: No space left", "the answer is in run")
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize("prompt", ["the of a and", "the " * 60])
def test_a_prompt_without_sinks_is_answered(here, model, tmp_path, prompt):
    done = here(
        "probe", model, "--prompt", prompt, "--epsilon", 0.99, "--sequences", 2, "--seq", 64,
        "--out", "run",
    )  # fmt: skip
    assert answered(done, tmp_path / "run")["result"]["prompt"]["caught"] is None
    assert "nothing to colour" in done.stdout


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


def test_a_table_without_rows_is_its_caption(capsys, tmp_path):
    empty = report.Table(("erased by", "value"), [], "Activations above 100: none.")
    section = report.Section("Massive activations", [], [empty])
    cli._print([section])
    report.write(tmp_path, "title", [section], {})
    page = (tmp_path / "report.html").read_text()
    for told in (capsys.readouterr().out, page):
        assert "Activations above 100: none." in told
        assert "erased by" not in told
    assert "<thead>" not in page


def test_brackets_of_a_glob_are_printed(capsys):
    paper().print("*.self_attn.[qk]_proj :bug:")
    assert capsys.readouterr().out == "*.self_attn.[qk]_proj :bug:\n"


# Tests that a shell runs in its background would hand down that Ctrl-C is ignored.
HEEDED = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_run_that_is_ended_leaves_nothing(model, tmp_path, name):
    """In a folder that it had to make, in the middle of its work."""
    environment = {**os.environ, "CTR_STORE": str(tmp_path / "s.sqlite"), "OMP_NUM_THREADS": "1"}
    asked = ["compress", model, "--windows", "100", "--context", "500", "--out", "a/b/run"]
    with subprocess.Popen(
        [sys.executable, "-c", HEEDED, CTR, *asked],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("BOS"):
            assert process.poll() is None
        assert (tmp_path / "a" / "b").is_dir()
        process.send_signal(getattr(signal, name))
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from experiments.cli import main
sys.argv = ["ctr", "toy", "train", "--seeds", "2", "--steps", "40", "--out", "run"]
main()
"""


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    """The system refuses to write more than 20 kB: the pictures do not fit."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "CTR_STORE": str(tmp_path / "s.sqlite")},
    )
    expect_refused(done, "disk full", "run")
    assert [p.name for p in tmp_path.iterdir()] == []
