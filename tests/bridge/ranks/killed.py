"""`ctr compress --ranks` of which one rank is killed with SIGKILL, and the same command again.

Prints a line of JSON: what was said, how long after the kill, whether the second run ends with the
bytes of one that nobody killed. The exit status is 1 where any of it is not so.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).parents[3]
WORDS = ["<unk>", "<s>", *(f"w{i}" for i in range(60))]


def tiny(folder: Path, blocks: int) -> None:
    """A model of so many blocks and its tokenizer, and 2,000 words."""
    torch.manual_seed(0)
    settings = LlamaConfig(
        hidden_size=36, intermediate_size=52, num_hidden_layers=blocks, num_attention_heads=6,
        num_key_value_heads=2, vocab_size=len(WORDS), max_position_embeddings=80, bos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(settings).save_pretrained(folder / "model")
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")
    fast.save_pretrained(folder / "model")
    words = np.random.default_rng(0).choice(WORDS[2:], 2000)
    (folder / "text").write_text(" ".join(words))


def command(folder: Path, name: str, ranks: int) -> list[str]:
    """One compression, kept in `name`, with its shards."""
    options = f"--ranks {ranks} --shards {name}-shards --text text --method oats --form packed"
    sizes = f"--calibration {4 * ranks} --windows 3 --context 32 --sequences 2 --seq 64"
    begin = [sys.executable, "-m", "experiments", "compress", "model", name]
    return [*begin, *options.split(), *sizes.split(), "--out", f"{name}-out"]


def started(folder: Path, name: str, ranks: int) -> subprocess.Popen[str]:
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CTR_STORE": "store"}
    with (folder / f"{name}.err").open("w") as said:
        return subprocess.Popen(
            command(folder, name, ranks),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=os.environ | own,
            text=True,
        )


def helpers(parent: int) -> list[int]:
    """The processes that it started and that run `experiments.ranks.rank`."""
    task = Path(f"/proc/{parent}/task/{parent}/children")
    found = [int(pid) for pid in task.read_text().split()]
    return [
        p for p in found if b"experiments.ranks.rank" in Path(f"/proc/{p}/cmdline").read_bytes()
    ]


def digest(folder: Path, name: str) -> dict[str, str]:
    """Of every file of weights, and of every operator in the shards.

    A shard also says how long each linear took: that is left out.
    """
    from safetensors.torch import load_file

    files = sorted((folder / name).rglob("*.safetensors"))
    shards = sorted((folder / f"{name}-shards").glob("*.safetensors"))
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    for file in shards:
        sums = hashlib.sha256()
        for key, tensor in sorted(load_file(file).items()):
            sums.update(key.encode() + tensor.view(torch.uint8).numpy().tobytes())
        found[file.name] = sums.hexdigest()
    return found


def killed(folder: Path, ranks: int) -> dict[str, Any]:
    """What a run says of which one rank is killed as soon as a block is kept; and what it left."""
    run = started(folder, "killed", ranks)
    first = folder / "killed-shards" / "block-00000.safetensors"
    while not first.exists() and run.poll() is None:
        time.sleep(0.001)
    victims = helpers(run.pid)
    os.kill(victims[-1], signal.SIGKILL)
    begun = time.monotonic()
    code = run.wait(timeout=60)
    lines = (folder / "killed.err").read_text().splitlines()
    return {
        "said": [line for line in lines if "error" in line.lower() or "rank" in line],
        "exit": code,
        "seconds until it ended": round(time.monotonic() - begun, 2),
        "processes left": sum(Path(f"/proc/{pid}").exists() for pid in victims),
        "blocks kept": len(list(first.parent.glob("block-*.safetensors"))),
        "half written": (folder / "killed").exists() or (folder / "killed-out").exists(),
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--blocks", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        tiny(folder, options.blocks)
        begun = time.monotonic()
        if started(folder, "whole", options.ranks).wait():
            sys.stdout.write((folder / "whole.err").read_text())
            return 1
        said = {"ranks": options.ranks, "seconds": round(time.monotonic() - begun, 1)}
        said |= killed(folder, options.ranks)
        again = started(folder, "killed", options.ranks).wait()
        said |= {
            "of": options.blocks,
            "again": again,
            "again said": (folder / "killed.err").read_text().splitlines()[-3:],
            "equal": again == 0 and digest(folder, "killed") == digest(folder, "whole"),
            "ranks said": [line for line in (folder / "whole.err").read_text().splitlines()
                           if line.startswith("rank ")],
        }  # fmt: skip
    sys.stdout.write(json.dumps(said) + "\n")
    good = said["equal"] and said["exit"] == 2 and said["seconds until it ended"] < 30
    good &= not said["processes left"] and not said["half written"]
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
