"""`ctr probe` from end to end on models of odd make: one head, no BOS, no sink, long prompts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from experiments import probe, report, serial
from experiments.catching import look
from experiments.caught import Caught, tail
from experiments.figures import prompts as figures
from experiments.probing import prompted
from experiments.probing.prompts import PROMPTS, chosen
from experiments.progress import Progress
from experiments.settings import BadOption, Reading
from mech.capture import capture
from mech.errors import BadInput
from mech.load import load
from mech.tokens import encode

WORDS = ["<unk>", "<s>", *(f"w{i}" for i in range(40)), "the", ".", "$x$", "你好"]
TEXT = " ".join(WORDS[2 + i * i % 44] for i in range(4000))
PROMPT = " ".join(WORDS[2 + i] for i in range(44)) + " the ."


def save(folder: Path, model, bos: str | None) -> Path:
    model.save_pretrained(folder)
    words = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, unk_token="<unk>")
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """Large weights, so that attention is far from uniform."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(WORDS),
        max_position_embeddings=300,
        initializer_range=0.5,
        bos_token_id=1,
    )
    return save(tmp_path_factory.mktemp("llama") / "m", LlamaForCausalLM(config), "<s>")


@pytest.fixture(scope="module")
def one_head(tmp_path_factory) -> Path:
    """Three layers of one head, learned positions, and a tokenizer without BOS."""
    torch.manual_seed(0)
    config = GPT2Config(n_embd=15, n_layer=3, n_head=1, vocab_size=len(WORDS), n_positions=256)
    return save(tmp_path_factory.mktemp("gpt2") / "m", GPT2LMHeadModel(config), None)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Run and tell as the command does; the sections' text and result.json's content."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "t.txt").write_text(TEXT)
    out = tmp_path / "out"
    out.mkdir()

    def run(model: Path, *, write: bool = False, **options):
        reading = Reading(model=str(model), text=tmp_path / "t.txt")
        defaults = {"prompt": PROMPT, "sequences": 3, "seq": 64}
        result = probe.run(probe.Config(reading, **defaults | options), Progress())
        sections = probe.sections(result)
        if write:
            report.write(out, "title", sections, {})
        stored = json.loads(serial.dumps(result))
        return out, result, stored, " ".join(line for s in sections for line in s.text)

    return run


def test_everything_is_asked_in_order_and_drawn(llama, ask):
    out, result, stored, _ = ask(llama, write=True)
    page = (out / "report.html").read_text()
    titles = ("Every kind of sink", "Secondary sinks", "Catch, tag, release", "Do tokens cluster")
    places = [page.index(f">{title}") for title in titles]
    assert places == sorted(places)
    assert {p.stem for p in out.glob("pictures/*.svg")} >= {"sink-grid", "sink-levels", "outliers"}
    assert 'href="prompt.html"' in page
    assert "page" not in stored  # a file of its own
    assert "w7" in (out / "prompt.html").read_text()
    if result.prompt.caught is not None:
        drawn = {p.stem for p in out.glob("pictures/*.png")}
        assert {"attention-map", "coloured-text", "outlier-stems"} <= drawn


def test_the_pictured_head_is_chosen_by_sinks_and_its_control_rests_less(llama):
    loaded = load(str(llama))
    prompt = encode(loaded.tokenizer, PROMPT)
    seen = look(loaded, prompt, 0.02).caught
    assert seen is not None
    assert seen.control is not None
    assert seen.sinks[0] == 0
    assert seen.sinks[-1] < len(prompt.ids) - tail(len(prompt.ids))
    np.testing.assert_allclose(seen.pattern.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(seen.control.pattern.sum(axis=1), 1, atol=1e-5)
    pattern = capture(loaded.model, prompt.ids[None]).pattern[seen.layer, 0]
    np.testing.assert_allclose(pattern[seen.head], seen.pattern, atol=1e-6)
    alpha = pattern.sum(axis=1) / np.arange(pattern.shape[-1], 0, -1)
    resting = alpha[:, seen.sinks].sum(axis=1)
    resting[seen.head] = np.inf
    assert seen.control.head == resting.argmin()


def test_a_stream_that_no_training_leaves_is_refused(llama):
    """Its squares overflow: every number of the report would be nonsense, after warnings."""
    loaded = load(str(llama))
    loaded.model.get_parameter("model.layers.1.mlp.down_proj.weight").data.mul_(1e30)
    prompt = encode(loaded.tokenizer, PROMPT)
    with pytest.raises(BadInput, match=r"after block 1 the residual stream holds \de\+"):
        look(loaded, prompt, 0.1)


def test_of_many_sinks_a_sentence_names_the_first():
    words = [f"w{i}" for i in range(30)]
    seen = Caught(0, 0, np.arange(0, 30, 2), np.eye(30), [], None, [])
    assert prompted.named(words, seen).endswith("“w14” (14) and 7 more")
    assert prompted.named(words, seen._replace(sinks=np.arange(8))).endswith(", “w7” (7)")


def test_one_head_a_layer_has_no_control_and_no_bos(one_head, ask):
    out, result, _, text = ask(one_head, write=True, epsilon=0.03)
    assert result.inputs.bos == "none: the tokenizer has no BOS"
    assert result.prompt.caught is not None
    assert result.prompt.caught.control is None
    assert "BOS: none" in text
    assert "control: output" not in (out / "report.html").read_text()


def test_a_model_without_sinks_says_so(one_head, ask):
    _, result, _, text = ask(one_head, epsilon=0.9)
    assert result.prompt.caught is None
    assert "nothing to colour" in text
    assert "No token of any head receives more than 0.9" in text
    assert "nan" not in text
    drawn = [picture.name for s in probe.sections(result) for picture in s.pictures]
    assert "sink-levels" in drawn
    assert "coloured-text" not in drawn


def test_the_summary_asks_less(llama, tmp_path):
    from experiments import measure
    from experiments.settings import Sizes

    (tmp_path / "t.txt").write_text(TEXT)
    config = probe.Config(Reading(str(llama), tmp_path / "t.txt"), PROMPT, sequences=3, seq=64)
    loaded = load(str(llama))
    material = measure.material(loaded, config.reading, Sizes(1, 2, 64, 3, 64), Progress())
    result = probe.answer(config, loaded, material, Progress())
    assert result.survey is None
    assert result.released is None
    assert [s.title.split()[0] for s in probe.sections(result)] == ["Attention", "Outliers", "Do"]


@pytest.mark.parametrize("refusing", ["page.measure", "released.look", "survey.survey"])
def test_what_cannot_be_measured_is_a_sentence(llama, ask, monkeypatch, refusing):
    def refuse(*_, **__):
        raise BadInput("this family is unknown")

    monkeypatch.setattr(f"experiments.probing.{refusing}", refuse)
    _, result, stored, text = ask(llama)
    assert "this family is unknown." in text
    assert stored["refused"]
    assert (result.page is None) == refusing.startswith("page")
    assert (result.released is None) == refusing.startswith("released")
    assert (result.survey is None) == refusing.startswith("survey")
    assert "too few to ask the same" not in text  # nobody asked


def test_a_head_that_writes_one_thing_has_no_groups(one_head):
    """Values of zero: a pruned head, say. There is no variance to explain, and no "nan"."""
    loaded = load(str(one_head))
    for block in loaded.model.get_submodule("transformer.h").children():
        block.get_parameter("attn.c_attn.weight").data[:, -15:] = 0
    seen = look(loaded, encode(loaded.tokenizer, PROMPT), 0.03)
    section = prompted.section(seen, 3, 0.03)
    assert "the same for every token" in section.text[1]
    cells = " ".join(cell for table in section.tables for row in table.rows for cell in row)
    assert "–" in cells
    assert "nan" not in cells


def test_a_prompt_that_cannot_be_is_refused_before_the_text_is_read(llama, ask, monkeypatch):
    monkeypatch.setattr("experiments.measure.material", lambda *_: pytest.fail("read the text"))
    with pytest.raises(BadOption, match="the prompt has 2 tokens"):
        ask(llama, prompt="the")


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_has_a_name(name):
    assert chosen(name, None) == PROMPTS[name]


def test_a_prompt_may_lie_in_a_file(tmp_path):
    (tmp_path / "p.txt").write_text("你好 the .", encoding="utf-8")
    assert chosen("laugh", tmp_path / "p.txt") == "你好 the ."


@pytest.mark.parametrize(
    ("prompt", "content", "says"),
    [
        ("laugh", None, "No such file"),
        ("laugh", b"", "is empty"),
        ("laugh", b"\xff\xfe", "not UTF-8"),
        ("a b c d", b"e f g h", "give one of them"),
    ],
)
def test_a_prompt_file_that_cannot_be(tmp_path, prompt, content, says):
    file = tmp_path / "p.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadOption, match=says) as caught:
        chosen(prompt, file)
    assert "\n" not in str(caught.value)
    assert "--prompt-file" in str(caught.value)


def test_every_prompt_beside_random_weights(llama):
    config = figures.Config(Reading(str(llama)), ("laugh", "nli", "nli"), epsilon=0.05, seed=1)
    result = figures.run(config, Progress())
    assert list(result.seen) == ["laugh", "nli"]
    for seen in result.seen.values():
        assert seen.real.heads == seen.random.heads == 12
        assert seen.real != seen.random
    sections = figures.sections(result)
    names = [picture.name for section in sections for picture in section.pictures]
    assert len(set(names)) == len(names)
    assert "Three moods" in " ".join(sections[0].text)
    serial.dumps(result)


def test_the_random_weights_are_no_training_and_always_the_same(llama):
    loaded = load(str(llama))
    state = torch.random.get_rng_state()
    first, again = (figures._random(loaded.model, 3).state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(first[name], again[name])
        assert "norm" in name or not torch.equal(first[name], weight)


@pytest.mark.model
def test_our_prompts_are_long_enough_to_count_on():
    tokenizer = load("smollm2").tokenizer
    lengths = {name: len(encode(tokenizer, text).ids) for name, text in PROMPTS.items()}
    assert {name for name, length in lengths.items() if length < 64} == {"laugh"}
