"""What is saved beside a model or made of it: weights, adapters, recipes, plans, GGUF."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import mutate
from target import Run, allowed


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


def adapter(folder: Path) -> tuple[Run, list[bytes]]:
    """The tensors of a low-rank adapter."""
    import torch
    from safetensors.torch import save

    from bridge.adapter import WEIGHTS, read

    def run(data: bytes) -> None:
        (folder / WEIGHTS).write_bytes(data)
        read(folder)

    return run, [save({"base_model.model.q.lora_A.weight": torch.ones(2, 3)}, {"format": "pt"})]


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
