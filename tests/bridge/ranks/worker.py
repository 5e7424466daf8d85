"""Compress models over ranks, or without any: every operator, weight and line into one file.

`python worker.py OUT [SIZES]`, alone or under RANK, WORLD_SIZE and CTR_MEETING (as
`experiments.ranks.helpers` sets them) or torchrun; rank 0 writes OUT, a safetensors file, and a
line of JSON a rank on standard output.
"""

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from bridge.compress import compress
from bridge.compression import restore
from bridge.methods.gptq import GPTQ
from bridge.methods.magnitude import Magnitude
from bridge.methods.oats import OATS
from bridge.methods.oats_moment import MomentOATS
from bridge.methods.qera import QERA
from bridge.methods.sparsegpt import SparseGPT
from bridge.methods.wanda import Wanda
from bridge.serial import tensors
from bridge.sites import operators
from experiments.ranks import together
from experiments.ranks.joined import joined

METHODS: dict[str, Any] = {
    "magnitude": Magnitude(),
    "wanda": Wanda(),
    "sparsegpt": SparseGPT(),
    "oats": OATS(iterations=10),
    "oats-moment": MomentOATS(),
    "gptq": GPTQ(),
    "qera": QERA(rank=5),
}
SIZES = {"hidden": 36, "layers": 3, "batches": 5, "seq": 17}


def model(hidden: int = 36, layers: int = 3) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=hidden, intermediate_size=hidden * 3 // 2 - 2,
        num_hidden_layers=layers, num_attention_heads=6, num_key_value_heads=2,
        attention_bias=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


def text(batches: int = 5, seq: int = 17) -> list[torch.Tensor]:
    """Batches of one and two sequences in turn."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 97, (1 + i % 2, seq), generator=generator) for i in range(batches)]


def work(out: Path, sizes: dict[str, int]) -> None:
    """All methods, as the rank that the environment names."""
    torch.set_num_threads(1)
    made = model(sizes["hidden"], sizes["layers"])
    batches = text(sizes["batches"], sizes["seq"])
    found, times = {}, {}
    group = joined("cpu") if together.torchrun() > 1 else nullcontext()
    with group as ranks:
        for name, method in METHODS.items():
            begun = time.monotonic()
            done = compress(made, method, batches, ranks=ranks)
            times[name] = round(time.monotonic() - begun, 3)
            for site, operator in operators(made).items():
                found |= {f"{name}/{site}/{key}": t for key, t in tensors(operator).items()}
            rows = [[row.delta_w, row.error, row.output_error or 0.0] for row in done.rows]
            found[f"{name}/rows"] = torch.tensor(rows, dtype=torch.float64)
            restore(made, done)
        spent = [] if ranks is None else ranks.spent()
    if ranks is None or ranks.rank == 0:
        save_file({key: t.contiguous() for key, t in found.items()}, out)
        sys.stdout.write(json.dumps({"times": times, "ranks": [s._asdict() for s in spent]}) + "\n")


if __name__ == "__main__":
    work(Path(sys.argv[1]), SIZES | (json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
