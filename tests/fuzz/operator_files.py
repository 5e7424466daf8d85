"""Operators in files: a run's blocks, notes of safetensors, the configuration of a packed model."""

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from target import Run


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
