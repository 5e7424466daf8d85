"""`ctr plan` against what then happens, on nine pairs of a model and a method, three on disk.

A script: prints a line of JSON a pair, and exits with 1 where memory or time is off by more than
a quarter or a byte on disk is. All in one session: this machine is measured once, then every plan
is made and its run started as a user starts it. No model has a shape that rates are fitted at.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer, models, pre_tokenizers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import WORDS

CTR = Path(sys.executable).parent / "ctr"
SIZES = ("--calibration", "8", "--windows", "4", "--sequences", "4", "--context", "256")
TOLERANCE = 0.25


class Pair(NamedTuple):
    """A model by name, a method, the form that is saved; whether weights stay in their folder."""

    model: str
    method: str
    form: str
    on_disk: bool = False

    @property
    def where(self) -> tuple[str, ...]:
        """As the command line says it."""
        return ("--on-disk",) if self.on_disk else ()


PAIRS = (
    Pair("llama", "wanda", "dense"),
    Pair("qwen3", "gptq", "packed"),
    Pair("llama", "oats", "base+lora"),
    Pair("neox", "qera", "base+lora"),
    Pair("phi3", "sparsegpt", "dense"),
    Pair("wide", "rounding", "packed"),
    Pair("llama", "wanda", "dense", on_disk=True),
    Pair("qwen3", "oats", "packed", on_disk=True),
    Pair("neox", "gptq", "dense", on_disk=True),
)


def made(name: str, folder: Path) -> Path:
    """A random model of the family, with a tokenizer of sixty words."""
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    common: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 1, "max_position_embeddings": 1024}
    made: Any = {
        "llama": lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                hidden_size=768, intermediate_size=2048, num_hidden_layers=6,
                num_attention_heads=12, num_key_value_heads=4, vocab_size=8192, **common,
            )
        ),
        "qwen3": lambda: transformers.Qwen3ForCausalLM(
            transformers.Qwen3Config(
                hidden_size=704, intermediate_size=1792, num_hidden_layers=5, head_dim=64,
                num_attention_heads=11, num_key_value_heads=11, vocab_size=8192, **common,
            )
        ),
        "neox": lambda: transformers.GPTNeoXForCausalLM(
            transformers.GPTNeoXConfig(
                hidden_size=576, intermediate_size=2304, num_hidden_layers=5,
                num_attention_heads=9, vocab_size=8192, **common,
            )
        ),
        "phi3": lambda: transformers.Phi3ForCausalLM(
            transformers.Phi3Config(
                hidden_size=704, intermediate_size=1920, num_hidden_layers=5, pad_token_id=0,
                num_attention_heads=11, num_key_value_heads=11, vocab_size=8192, **common,
            )
        ),
        "wide": lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                hidden_size=1152, intermediate_size=3072, num_hidden_layers=5,
                num_attention_heads=9, num_key_value_heads=9, vocab_size=16384, **common,
            )
        ),
    }[name]()  # fmt: skip
    if name == "phi3":
        torch.nn.Module.to(made, dtype=torch.bfloat16)
    made.save_pretrained(folder)
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    return folder


def planned(model: str, *words: str) -> dict[str, Any]:
    """The plan of the last method named."""
    done = subprocess.run(
        [CTR, "plan", model, "--json", *SIZES, *words], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)["plans"][-1]


def happened(model: str, pair: Pair, folder: Path) -> dict[str, Any]:
    """Run it; bytes resident at the most, of tensors written, and seconds of processor and wall."""
    out, run = folder / "saved", folder / "run"
    begun = time.monotonic()
    child = subprocess.Popen(
        [CTR, "compress", model, str(out), "--method", pair.method, "--form", pair.form,
         "--text", str(folder / "text.txt"), "--out", str(run), *SIZES, *pair.where],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"CTR_STORE": str(folder / "runs.sqlite")},
    )  # fmt: skip
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{pair}: {said}")
    stored = json.loads((run / "result.json").read_text())
    return {
        "memory": stored["peak_bytes"],
        "disk": tensor_bytes(out),
        "seconds": used.ru_utime + used.ru_stime,
        "wall": time.monotonic() - begun,
    }


def tensor_bytes(folder: Path) -> int:
    """Of all tensors in all safetensors files, by their headers."""
    total = 0
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                total += opened.get_tensor(key).nbytes
    return total


def against(pair: Pair) -> dict[str, Any]:
    """The plan over what happened, of one pair."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        words = np.random.default_rng(0).choice(WORDS[2:], 20_000)
        (folder / "text.txt").write_text(" ".join(words))
        model = str(made(pair.model, folder / "model"))
        plan = planned(model, "--method", pair.method, "--form", pair.form, *pair.where)
        found = happened(model, pair, folder)
    stages, base = plan["memory"]["stages"], plan["memory"]["base"]
    peak, seconds = max(stages.values()), plan["seconds"]["stages"]
    disk = plan["disk"]
    forms = {"dense": disk["dense"], "packed": disk["packed"]}
    forms["base+lora"] = disk["dense"] + (disk["adapter"] or 0)
    return {
        **pair._asdict(),
        "memory": round((base + peak) / found["memory"], 3),
        # The control: what the model and the method add, without what any run holds.
        "memory without base": round(peak / (found["memory"] - base), 3),
        "disk bytes off": forms[pair.form] - found["disk"],
        "time": round(sum(seconds.values()) / found["seconds"], 3),
        "planned": {
            "base": base >> 20,
            "memory": {name: value >> 20 for name, value in stages.items()},
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
        },
        "happened": found,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="models or methods; all pairs without any")
    parser.add_argument("--on-disk", action="store_true", help="of these the pairs on disk")
    given = parser.parse_args()
    only = set(given.only)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    pairs = [
        pair
        for pair in PAIRS
        if (not only or only & {pair.model, pair.method}) and pair.on_disk >= given.on_disk
    ]
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        model = str(made("neox", Path(scratch) / "model"))
        planned(model, "--measure", "--method", *sorted({pair.method for pair in pairs}))
    for pair in pairs:
        found = against(pair)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        worst = max(worst, *(abs(found[key] - 1) for key in ("memory", "time")))
        worst = max(worst, float(found["disk bytes off"] != 0))
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
