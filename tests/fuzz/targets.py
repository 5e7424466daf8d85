"""Every loader of files, as a function of bytes; what it may say, and files to begin with."""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import mutate

Run = Callable[[bytes], None]
Mutate = Callable[[bytes, Any], bytes]


class Target(NamedTuple):
    """`make(folder)`: what reads bytes, using that folder, and the files that it begins with."""

    make: Callable[[Path], tuple[Run, list[bytes]]]
    mutate: Mutate


def allowed() -> tuple[type[BaseException], ...]:
    """What a loader may raise: the package's own errors, and what the system says of files."""
    from experiments.settings import BadOption
    from experiments.text import UnreadableText
    from mech.errors import BadInput
    from toy.certify.decimals import Rejected
    from toy.errors import Refused

    return BadInput, BadOption, UnreadableText, Refused, Rejected, OSError


def one_line(error: BaseException) -> None:
    """An error that is the package's own is short; `ctr` itself makes spaces of ends of line."""
    if not isinstance(error, OSError):
        assert len(str(error)) < 4000, len(str(error))


def _operators() -> list[Any]:
    import torch

    from bridge.operators import Affine, Dense, LowRank, Sparse, Stack, Sum
    from bridge.quantized import Quantized
    from bridge.sliced import Sliced

    draw = torch.Generator().manual_seed(0)

    def matrix(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=draw)

    sparse = Sparse(matrix(4, 3) * (matrix(4, 3) > 0))
    low = LowRank(matrix(4, 1), matrix(1, 3))
    codes = torch.randint(0, 8, (4, 6), generator=draw, dtype=torch.uint8)
    return [
        Affine(Sum([sparse, low]), matrix(4)),
        Stack([Dense(matrix(2, 3)), sparse]),
        Quantized(codes, matrix(4, 2), None, bits=3, group=3),
        Sliced(matrix(2, 3), shape=(4, 3), rows=torch.tensor([0, 2])),
    ]


def _row(name: str, operator: Any) -> Any:
    from bridge.budget import cost
    from bridge.compression import Row

    total = cost(operator, operator.shape[0] * operator.shape[1])
    return Row(name, operator.shape, total, 0.5, 0.25, 0.0, None, "")


def shards(folder: Path) -> tuple[Run, list[bytes]]:
    """A block of a run, as it lies and with its checksum put right."""
    import torch
    from safetensors.torch import load, save

    from bridge.compression import Done
    from bridge.shards import Shards, _digest

    kept = Shards(folder / "run", lambda _: None)
    kept.folder.mkdir()
    kept._run = "0" * 64
    file = kept._file(0)
    seeds = []
    for number, operator in enumerate(_operators()):
        kept.write(0, {f"layers.0.{number}": Done(operator, _row(f"layers.0.{number}", operator))})
        seeds.append(file.read_bytes())

    def sealed(data: bytes) -> bytes | None:
        (length,) = struct.unpack("<Q", data[:8])
        notes = json.loads(data[8 : 8 + length])["__metadata__"]
        found: dict[str, torch.Tensor] = load(data)
        return save(found, {**notes, "sha256": _digest(notes["content"], found)})

    def run(data: bytes) -> None:
        file.write_bytes(data)
        kept.read(0)
        again = None
        with suppress(Exception):  # no such file: nothing to seal
            again = sealed(data)
        if again is not None:
            file.write_bytes(again)
            kept.read(0)

    return run, seeds


def claimed(folder: Path) -> tuple[Run, list[bytes]]:
    """run.json of a folder of shards."""
    from bridge.shards import RUN, Shards

    now = {"format": "1", "model": "Llama 0", "method": "{}", "code": "ab"}
    kept = Shards(folder / "run", lambda _: None)
    kept.folder.mkdir()

    def run(data: bytes) -> None:
        (kept.folder / RUN).write_bytes(data)
        kept._claim(now)

    return run, [json.dumps(now).encode(), json.dumps({**now, "code": "cd"}).encode()]


def spec(folder: Path) -> tuple[Run, list[bytes]]:
    """The description of an operator beside its tensors: the notes of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    from bridge.serial import describe, rebuild, tensors

    def run(data: bytes) -> None:
        try:
            found = load(data)
            (length,) = struct.unpack("<Q", data[:8])
            said = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["spec"])
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
            return
        rebuild(said, found)

    return run, [save(tensors(op), {"spec": json.dumps(describe(op))}) for op in _operators()]


def packed(folder: Path) -> tuple[Run, list[bytes]]:
    """`quantization_config` of a packed model's config.json, up to the operators in place."""
    import torch
    import transformers

    from bridge.packed import digest, prepare, restore
    from bridge.quantizer import VERSION, PackedConfig
    from bridge.serial import describe
    from bridge.sites import place

    settings = transformers.LlamaConfig(
        vocab_size=5, hidden_size=4, intermediate_size=3, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(settings)
    names = ("q_proj", "o_proj", "k_proj", "v_proj")
    linears = {
        f"layers.0.self_attn.{name}": describe(operator)
        for name, operator in zip(names, _operators(), strict=True)
    }
    whole: dict[str, torch.nn.Module] = {
        name: model.model.layers[0].get_submodule(name.removeprefix("layers.0."))
        for name in linears
    }

    def run(data: bytes) -> None:
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            return
        if not isinstance(said, dict):
            return
        config = PackedConfig(**said)
        try:
            prepare(model, config.linears)
            for name in config.linears:
                slots = model.model.layers.get_submodule(name.removeprefix("layers."))
                if sum(buffer.numel() for buffer in slots.buffers()) > 2**16:
                    return
                slots.to_empty(device="cpu")
                for buffer in slots.buffers():
                    buffer.zero_()
            found = {
                name: dict(
                    model.model.layers.get_submodule(name.removeprefix("layers.")).named_buffers()
                )
                for name in config.linears
            }
            restore(model, config.linears, digest(found))
        finally:
            place(model, whole)

    said = {"version": VERSION, "sha256": "0" * 64, "dtype": "float32", "manifest": False}
    seeds = [json.dumps({**said, "linears": {n: s}}).encode() for n, s in linears.items()]
    return run, [*seeds, json.dumps({**said, "linears": linears}).encode()]


def manifest(folder: Path) -> tuple[Run, list[bytes]]:
    """manifest.json of a saved model, with what `reread` asks of it."""
    from bridge.checkpoint import _complete
    from bridge.manifest import MANIFEST, verify, write

    (folder / "a.json").write_text("{}")
    layer = {"parameters": 12, "kept": 6, "bits": 192}
    write(folder, form="dense", tensors="0" * 64, layers={"layers.0.q": layer}, provenance={})

    def run(data: bytes) -> None:
        (folder / MANIFEST).write_bytes(data)
        _complete(verify(folder))

    return run, [(folder / MANIFEST).read_bytes()]


def recipe(folder: Path) -> tuple[Run, list[bytes]]:
    """A recipe: its JSON, or its tensors, with the manifest put right."""
    import torch

    from bridge import manifest
    from bridge.decode.plan import Setting
    from bridge.decode.recipe import Recipe
    from bridge.decode.recipe_file import RECIPE, TENSORS, load

    likeness = torch.tensor([4.0, 3.0, 1.0, 2.0])
    made = Recipe(
        {"layers.0.q": Setting(0.5)}, {"layers.0.q": torch.ones(3)}, {}, {},
        {"layers.0.q": likeness}, {"layers.0.q": torch.zeros(4)},
    )  # fmt: skip
    place = made.save(folder / "recipe")
    stock = {name: (place / name).read_bytes() for name in (RECIPE, TENSORS)}

    def run(data: bytes) -> None:
        part = TENSORS if data[7:8] == b"\0" else RECIPE
        for name in stock:
            (place / name).write_bytes(data if name == part else stock[name])
        (place / manifest.MANIFEST).unlink(missing_ok=True)
        manifest.write(place, form="recipe")
        load(place)

    return run, list(stock.values())


def recipe_changed(data: bytes, rng: Any) -> bytes:
    """As what it is."""
    return (mutate.tensors if data[7:8] == b"\0" else mutate.json_bytes)(data, rng)


def plan(folder: Path) -> tuple[Run, list[bytes]]:
    """A plan of sparse decoding."""
    from bridge.decode.plan_file import load_plan

    file = folder / "plan.json"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        load_plan(file)

    seed = {"sparsity": 0.5, "alpha": 0.5, "rule": "magnitude", "factors": "svd"}
    return run, [json.dumps({"plan": {"layers.0.q": seed, "layers.1.q": seed}}).encode()]


def journal(folder: Path) -> tuple[Run, list[bytes]]:
    """The lines that a search keeps."""
    from bridge.search.journal import Journal

    file = folder / "journal"
    first = json.dumps({"of": {"a": 1}}, sort_keys=True)

    def run(data: bytes) -> None:
        file.write_bytes(data)
        Journal(file, {"a": 1}).add({"z": 1.0})

    return run, [f'{first}\n{{"k": 0.5}}\n{{"l": 1}}\n{{"m'.encode()]


def adapter(folder: Path) -> tuple[Run, list[bytes]]:
    """The tensors of a low-rank adapter."""
    import torch
    from safetensors.torch import save

    from bridge.adapter import WEIGHTS, read

    def run(data: bytes) -> None:
        (folder / WEIGHTS).write_bytes(data)
        read(folder)

    return run, [save({"base_model.model.q.lora_A.weight": torch.ones(2, 3)}, {"format": "pt"})]


def weights(folder: Path) -> tuple[Run, list[bytes]]:
    """A model's safetensors file, its table of contents and every tensor."""
    import torch
    from safetensors.torch import save

    from mech.load import _check_file
    from mech.shards import stored

    file = folder / "model.safetensors"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(*allowed()):
            _check_file(file)
        for tensor in stored([file]).values():
            tensor[...]
            if len(tensor.shape) == 2 and tensor.shape[0]:
                tensor.rows(torch.tensor([0, tensor.shape[0] - 1]))

    seed = {"a": torch.ones(3, 5), "b": torch.zeros(2, dtype=torch.bfloat16), "c": torch.ones(1)}
    return run, [save(seed, {"format": "pt"})]


def result(folder: Path) -> tuple[Run, list[bytes]]:
    """result.json of a run, and all that `ctr runs` shows of it."""
    from experiments import stored
    from experiments.ledger import record

    file = folder / "result.json"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(*allowed()):
            record.of_run(folder, force=True)
        row = stored.run(str(folder))
        stored.called(row)
        stored.units(row)
        stored.tables(row)
        stored.findings(row)

    return run, [json.dumps(_result()).encode()]


def _result() -> dict[str, Any]:
    from experiments.ledger.claims import CLAIMS

    finding = {
        "claim": next(iter(CLAIMS)), "case": "a", "unit": "nats", "over": "windows",
        "effect": {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 4},
        "claimed": {"low": 0.0, "high": "inf"}, "control": "b", "note": "", "verdict": "shown",
    }  # fmt: skip
    return {
        "started": "2026-01-01T00:00:00", "command": "ctr experiment x --preset smallest",
        "question": "q", "config": {"kind": "Config", "seed": 0}, "seed": 0, "inputs": {},
        "versions": {"commit": "a"}, "wall_seconds": 1.5, "peak_bytes": 3,
        "result": {"units": {"a": [1.0, 0.5]}, "findings": [finding],
                   "tables": [{"columns": ["a", "b"], "rows": [["x", "0.5 [0.2, 0.7]"]],
                               "caption": ""}]},
    }  # fmt: skip


def config(folder: Path) -> tuple[Run, list[bytes]]:
    """A stored Config, given back as every class that a command has."""
    from importlib import import_module

    from experiments.commands import COMMANDS
    from experiments.restored import restored
    from experiments.serial import plain

    names = ["compress", "perplexity", "probe", "toy train", "evaluate", "experiment tags"]
    kinds = [import_module(COMMANDS[name].module).Config for name in names if name in COMMANDS]

    def run(data: bytes) -> None:
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            return
        for kind in kinds:
            with suppress(*allowed()):
                restored(kind, said)

    return run, [json.dumps(plain(kind())).encode() for kind in kinds]


def training(folder: Path) -> tuple[Run, list[bytes]]:
    """A training of the toy, as it lies and with its checksum put right."""
    from safetensors.numpy import load, save

    from toy import checkpoint
    from toy.recipe import Recipe
    from toy.train import begin

    file = folder / "t.safetensors"
    checkpoint.save_training(file, begin(Recipe(steps=4, checkpoints=2, seeds=2)))
    seed = file.read_bytes()

    def sealed(data: bytes) -> bytes:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["training"])
        found = load(data)
        header["sha256"] = checkpoint._checksum(found, header["about"])
        return save(found, {"training": json.dumps(header)})

    def run(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(*allowed()):
            checkpoint.load_training(file)
        with suppress(Exception):
            file.write_bytes(sealed(data))
        checkpoint.load_training(file)

    return run, [seed]


def certificate(folder: Path) -> tuple[Run, list[bytes]]:
    """A certificate, as it lies and sealed anew."""
    from toy.certify import check

    file = folder / "c.json"
    content = {
        "schema": check.SCHEMA, "statement": check.STATEMENT, "T": 3, "t": 1, "X": "0.01",
        "s": ["4", "4.01"], "b": ["0", "0.01"], "d": ["4", "4.01"], "fraction": "1",
        "leaves": {"s-": "1", "s+": "1"},
    }  # fmt: skip

    def run(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(*allowed()):
            check.check(file)
        try:
            said = json.loads(data)
            said.pop("sha256")
            file.write_text(check.sealed(said))
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            return
        check.check(file)

    return run, [check.sealed(content).encode()]


def gguf(folder: Path) -> tuple[Run, list[bytes]]:
    """A GGUF file, into a cache of its own."""
    import os

    import numpy as np
    from gguf import GGUFWriter

    from mech.gguf import converted

    file = folder / "m.gguf"
    os.environ["CTR_CACHE"] = str(folder / "cache")
    writer = GGUFWriter(file, "llama")
    for name, value in {
        "block_count": 1, "context_length": 8, "embedding_length": 4, "feed_forward_length": 6,
        "head_count": 2,
    }.items():  # fmt: skip
        getattr(writer, f"add_{name}")(value)
    writer.add_token_list(["a", "b", "<s>"])
    writer.add_tokenizer_model("llama")
    writer.add_token_scores([0.0, -1.0, -2.0])
    writer.add_token_types([1, 1, 3])
    writer.add_bos_token_id(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor("token_embd.weight", np.ones((3, 4), np.float32))
    writer.add_tensor("blk.0.attn_q.weight", np.ones((4, 4), np.float32))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    seed = file.read_bytes()

    def run(data: bytes) -> None:
        file.write_bytes(data)
        converted(file)

    return run, [seed]


def texts(folder: Path) -> tuple[Run, list[bytes]]:
    """A text, a prompt, and the tasks and summaries of a folder, all from the same bytes."""
    from experiments.fewshot import mmlu, summaries, tasks
    from experiments.parts.r_sparse import domains
    from experiments.probing import prompts
    from experiments.text import read_text

    local = {name: folder / file for name, (file, _) in tasks.LOCAL.items()}
    table = folder / "mmlu" / "dev" / "a_dev.csv"
    other = folder / "a.jsonl"
    for file in (*local.values(), table):
        file.parent.mkdir(parents=True, exist_ok=True)

    def run(data: bytes) -> None:
        for file in (*local.values(), table, other):
            file.write_bytes(data)
        readers: list[Callable[[], Any]] = [
            lambda: read_text(other, "calibration"),
            lambda: prompts.chosen("", other),
            lambda: summaries.read(other, 1),
            lambda: domains._lines(other),
            lambda: mmlu.items(folder / "mmlu", "dev"),
            *(lambda name=name: tasks._read(name, folder) for name in local),
        ]
        for read in readers:
            try:
                read()
            except allowed() as error:
                one_line(error)

    item = json.dumps({"query": "a", "choices": ["b", "c"], "gold": 1})
    summary = json.dumps({"document": "a b", "summary": "b"})
    fields = ",".join(mmlu.FIELDS)
    csv = f"{fields}\nq,a,b,c,d,0\n" if len(mmlu.FIELDS) == 6 else f"{fields}\n"
    return run, [f"{item}\n{item}\n".encode(), f"{summary}\n".encode(), csv.encode()]


def ledger(folder: Path) -> tuple[Run, list[bytes]]:
    """A record of the ledger."""
    from experiments.ledger import record

    def run(data: bytes) -> None:
        (folder / "a.json").write_bytes(data)
        record.records(folder)

    def small(file: Path) -> bytes:
        said = json.loads(file.read_bytes())
        return json.dumps(
            {k: v[:2] if isinstance(v, list) else v for k, v in said.items()}
        ).encode()

    return run, [small(file) for file in sorted(record.RECORDS.glob("*.json"))[:2]]


def memory(folder: Path) -> tuple[Run, list[bytes]]:
    """What is remembered: arrays and facts."""
    import numpy as np

    from experiments.remembered import Found, remembered

    key = {"a": 1}
    remembered(folder, key, lambda: Found({"x": np.arange(3.0)}, {"n": 2, "y": [1.0]}))
    (file,) = folder.glob("*.safetensors")

    def run(data: bytes) -> None:
        file.write_bytes(data)
        remembered(folder, key, lambda: Found({}, {}))

    return run, [file.read_bytes()]


def sweep(folder: Path) -> tuple[Run, list[bytes]]:
    """The plan of a sweep of the toy."""
    from toy.sweep_plan import Plan
    from toy.sweep_state import PLAN, check_plan

    check_plan(Plan(), folder)
    seed = (folder / PLAN).read_bytes()

    def run(data: bytes) -> None:
        (folder / PLAN).write_bytes(data)
        check_plan(Plan(), folder)

    return run, [seed]


def store(folder: Path) -> tuple[Run, list[bytes]]:
    """A cell of the run store, and the whole file."""
    import sqlite3
    from contextlib import closing

    from experiments import store as runs
    from experiments import stored

    file = folder / "runs.sqlite"
    runs.add(file, **{**_result(), "out": "x"})
    whole = file.read_bytes()

    def run(data: bytes) -> None:
        is_file = data[:6] == b"SQLite"
        file.write_bytes(data if is_file else whole)
        for left in folder.glob("runs.sqlite-*"):
            left.unlink()
        try:
            if not is_file:
                with closing(sqlite3.connect(file)) as connection, connection:
                    text = data.decode("utf-8", "replace")
                    connection.execute("UPDATE runs SET result = ?", (text,))
            for row in runs.rows(file):
                stored.units(row)
                stored.tables(row)
                stored.findings(row)
        except sqlite3.Error:
            pass

    return run, [json.dumps(_result()["result"]).encode(), whole]


def sqlite_changed(data: bytes, rng: Any) -> bytes:
    """As what it is."""
    return (mutate.blind if data[:6] == b"SQLite" else mutate.json_bytes)(data, rng)


TARGETS: Mapping[str, Target] = {
    "adapter": Target(adapter, mutate.tensors),
    "certificate": Target(certificate, mutate.json_bytes),
    "claimed": Target(claimed, mutate.json_bytes),
    "config": Target(config, mutate.json_bytes),
    "gguf": Target(gguf, mutate.blind),
    "journal": Target(journal, mutate.lines),
    "ledger": Target(ledger, mutate.json_bytes),
    "manifest": Target(manifest, mutate.json_bytes),
    "memory": Target(memory, mutate.tensors),
    "packed": Target(packed, mutate.json_bytes),
    "plan": Target(plan, mutate.json_bytes),
    "recipe": Target(recipe, recipe_changed),
    "result": Target(result, mutate.json_bytes),
    "shards": Target(shards, mutate.tensors),
    "spec": Target(spec, mutate.tensors),
    "store": Target(store, sqlite_changed),
    "sweep": Target(sweep, mutate.json_bytes),
    "texts": Target(texts, mutate.lines),
    "training": Target(training, mutate.tensors),
    "weights": Target(weights, mutate.tensors),
}


def guarded(run: Run) -> Run:
    """`run`, whose own errors are answers; anything else goes through: it is a crash."""
    kinds = allowed()

    def once(data: bytes) -> None:
        try:
            run(data)
        except kinds as error:
            one_line(error)

    return once


def digest(data: bytes) -> str:
    """A short name of an input."""
    return hashlib.sha256(data).hexdigest()[:12]
