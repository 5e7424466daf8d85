"""Plans against what happens: bytes exactly, memory within a quarter, refusals in one line."""

import json
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open

import bridge.methods
from bridge.adapter import ADAPTER
from bridge.checkpoint import save
from bridge.compress import compress
from bridge.compression import restore
from bridge.shards import Shards
from experiments import roster
from experiments.planning import work
from experiments.planning.disk import disk
from experiments.planning.names import METHODS
from experiments.planning.plan import plan
from experiments.planning.rates import Cost, Rates, machine
from experiments.planning.shapes import of_model, shape_of
from experiments.planning.workspace import WORKSPACE
from experiments.settings import BadOption, Budget, Sizes
from mech.errors import BadInput

COMMON: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1,
}  # fmt: skip
TINY = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**COMMON)),
    "tied": lambda: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(**COMMON, tie_word_embeddings=True)
    ),
    "phi3": lambda: transformers.Phi3ForCausalLM(
        transformers.Phi3Config(**COMMON, pad_token_id=0, eos_token_id=2)
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=50, n_embd=40, n_layer=2, n_head=4, n_positions=32)
    ),
}


def tensor_bytes(folder) -> int:
    total = 0
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            total += sum(opened.get_tensor(key).nbytes for key in opened.keys())  # noqa: SIM118
    return total


# Heads so narrow that nothing is left for a low-rank term of theirs: the adapter is of the MLP.
NARROW: dict[str, Any] = COMMON | {"head_dim": 2, "num_key_value_heads": 1}
MADE = TINY | {"narrow": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**NARROW))}
NAMES = ["wanda", "sparsegpt", "oats", "gptq", "qera", "low-rank"]
PAIRS = [*((family, name) for name in NAMES for family in TINY), ("narrow", "oats")]


@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_bytes_on_disk_to_the_last(family, name, tmp_path):
    torch.manual_seed(0)
    model = MADE[family]().eval()
    budget = Budget(rank=3) if name == "qera" else Budget()
    method = roster.build(name, budget)
    said = disk(of_model(model), method)
    ids = torch.arange(24).view(2, 12)
    done = compress(model, method, [ids], shards=Shards(tmp_path / "shards"))
    assert tensor_bytes(tmp_path / "shards") == said.shards
    forms: list[Any] = (
        ["dense", "packed"] if said.adapter is None else ["dense", "packed", "base+lora"]
    )
    assert (said.adapter is None) == (name in roster.WITHOUT_LOW_RANK)
    for form in forms:
        folder = save(model, None, tmp_path / form, {}, form=form)
        assert tensor_bytes(folder) == said.of(form), form
    if said.adapter is not None:
        assert tensor_bytes(tmp_path / "base+lora" / ADAPTER) == said.adapter
    restore(model, done)


def test_shapes_without_weights_are_those_of_the_model(tmp_path):
    """Who reads what is found without numbers; a model with numbers counts each by itself."""
    for family, make in TINY.items():
        model = make()
        model.config.architectures = [type(model).__name__]
        folder = tmp_path / family
        model.config.save_pretrained(folder)
        here, told = of_model(model), shape_of(folder)
        assert told.numbers == here.numbers == shape_of(folder / "config.json").numbers
        assert {n: one.parts for n, one in told.linears.items()} == {
            n: one.parts for n, one in here.linears.items()
        }
        if family == "llama":
            reads = [one.reads for one in told.blocks[0].values()]
            q, k, v, o, gate, up, down = reads
            assert q == k == v
            assert gate == up
            assert len({q, o, gate, down}) == 4


COST = Cost(start=1.0, entry=1e-8, operation=1e-11, call=1e-9, resident=0)
EACH = ("operation", "element", "attended", "looked", "scored", "squared", "moment", "hashed",
        "written")  # fmt: skip
RATES = Rates(
    machine=machine(), base=10**8, start=5.0, methods=dict.fromkeys(METHODS, COST),
    **dict.fromkeys(EACH, 1e-10),
)  # fmt: skip


def large(layers: int, folder, **more):
    config = {**COMMON, "num_hidden_layers": layers, "hidden_size": 512, "intermediate_size": 1408}
    made = transformers.LlamaConfig(**{**config, **more}, architectures=["LlamaForCausalLM"])
    made.save_pretrained(folder / f"{layers}{more}")
    return shape_of(folder / f"{layers}{more}")


def planned(shape, name="sparsegpt", **more) -> Any:
    return plan(shape, name, roster.build(name, Budget()), Sizes(), RATES, 0, **more)


def test_laws(tmp_path):
    few, many = large(4, tmp_path), large(12, tmp_path)
    # On disk memory does not grow with depth; in memory it does, by weights and operators.
    assert planned(few, on_disk=True).memory.peak == planned(many, on_disk=True).memory.peak
    grown = planned(many).memory.peak - planned(few).memory.peak
    assert grown >= 2 * (many.weights - few.weights)
    one, four = planned(many), planned(many, ranks=4)
    assert one.sent == 0 < four.sent
    for stage in ("calibrate", "method", "evaluate"):
        ratio = one.seconds.stages[stage] / four.seconds.stages[stage]
        assert 3 < ratio <= 4.001, (stage, ratio)
    # Twice the rows of the MLP: no number that is told gets smaller.
    wider = planned(large(4, tmp_path, intermediate_size=2816))
    assert wider.memory.peak > planned(few).memory.peak
    assert wider.seconds.total > planned(few).seconds.total


def test_every_method_has_its_operations_and_its_bytes():
    """A method that is added and not planned for is missed here: `planning/names.py` says how."""
    assert sorted(METHODS) == sorted(bridge.methods.METHODS)
    assert sorted(work._WORK) == sorted(METHODS)
    assert sorted(WORKSPACE) == sorted(METHODS)


def test_every_method_can_be_planned(tmp_path):
    shape = large(2, tmp_path)
    for name in METHODS:
        found = planned(shape, name)
        assert found.memory.peak > 2 * shape.weights
        assert found.seconds.total > RATES.start
        assert found.disk.packed < found.disk.dense


def test_refusals(tmp_path):
    with pytest.raises(BadInput, match=r"no config\.json there"):
        shape_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "none such"}')
    with pytest.raises(BadInput, match="cannot be read"):
        shape_of(tmp_path)
    shape = large(2, tmp_path)
    with pytest.raises(BadOption, match="32 calibration sequences are 8 batches"):
        planned(shape, ranks=9)
    with pytest.raises(BadOption, match="leaves no low-rank term"):
        planned(shape, form="base+lora")


def test_the_command_refuses_and_prints(here, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for words, said in {
        ("--method", "a3"): "--method a3: what it spends is known only when it has run",
        ("--method", "wandx"): "wanda",
        ("--ranks", "0"): "--ranks 0: give at least 1",
        ("--method", "wanda", "--bits", "3"): "--bits 3: wanda has no such option",
    }.items():
        done = here("plan", "nowhere", *words)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    large(2, tmp_path)
    model = next(tmp_path.glob("2*"))
    done = here("plan", model, "--method", "oats", "gptq", "--ranks", "1", "2")
    assert done.returncode == 0
    assert "no time for oats, gptq: --measure" in done.stderr
    assert done.stdout.count("oats") == 2
    from experiments.planning import rates

    rates.write(rates.kept(), RATES)
    told = json.loads(here("plan", model, "--method", "oats", "--json").stdout)["plans"][0]
    assert told["seconds"]["stages"]["start"] == 6.0
    rates.kept().write_text("{}")
    done = here("plan", model, "--method", "oats")
    assert done.returncode == 2
    assert "is damaged: delete it and measure again" in done.stderr


def test_memory_within_a_quarter(ctr, tmp_path):
    """A run of the real command; the rest of the six pairs: `against.py` in this folder."""
    import numpy as np
    from tiny import WORDS, tiny_llama

    tiny_llama(tmp_path / "model", room=512)  # for its tokenizer
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **{**COMMON, "vocab_size": 62, "hidden_size": 768, "intermediate_size": 2048,
           "num_hidden_layers": 4, "max_position_embeddings": 512}
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    words = np.random.default_rng(0).choice(WORDS[2:], 6000)
    (tmp_path / "text.txt").write_text(" ".join(words))
    sizes = ("--calibration", 2, "--windows", 2, "--sequences", 2, "--context", 64, "--seq", 64)
    told = json.loads(ctr("plan", "model", "--method", "magnitude", "--json", *sizes).stdout)
    done = ctr("compress", "model", "saved", "--method", "magnitude", "--text", "text.txt",
               "--out", "run", *sizes)  # fmt: skip
    assert done.returncode == 0, done.stderr
    memory = told["plans"][0]["memory"]
    peak = memory["base"] + max(memory["stages"].values())
    found = json.loads((tmp_path / "run" / "result.json").read_text())["peak_bytes"]
    assert 0.75 < peak / found < 1.25, (peak, found)
    assert tensor_bytes(tmp_path / "saved") == told["plans"][0]["disk"]["dense"]
