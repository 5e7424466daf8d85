"""A folder several times larger than the memory allowed is compressed to the end, and as in memory.

A script: it makes a random Llama, compresses it on disk in a child process that limits itself
(RLIMIT_DATA: private memory, whoever asks for it), kills it on the way and lets it go on, saves
it in a form, does the same in memory without a limit, and compares every tensor of the shards
and every byte of the folders. The control is the in-memory way inside the limit. Prints a line
of JSON; the exit status is 1 where anything differs, or where the control does not die.
"""

import argparse
import hashlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MB = 2**20


def private() -> int:
    """Bytes that RLIMIT_DATA counts of this process now."""
    return status("VmData")


def status(what: str) -> int:
    """A line of the kernel's account of this process, in bytes."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(row for row in rows if row.startswith(what)).split()[1])


def make(folder: Path, d_model: int, d_mlp: int, layers: int) -> int:
    """A random Llama in bfloat16, a file a block, never whole in memory; its bytes."""
    import torch
    import transformers
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models

    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=d_model, intermediate_size=d_mlp, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8, tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(folder)
    transformers.GenerationConfig(bos_token_id=1).save_pretrained(folder)
    core = Tokenizer(models.WordLevel({"a": 0, "<s>": 1}, unk_token="a"))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>")
    fast.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in transformers.LlamaForCausalLM(config).state_dict().items()}
    files: dict[str, list[str]] = {}
    for name in shapes:
        parts = name.split(".")
        files.setdefault(parts[2] if parts[1] == "layers" else "rest", []).append(name)
    index = {}
    for number, (shard, names) in enumerate(files.items()):
        generator = torch.Generator().manual_seed(number)
        weights = {}
        for name in names:
            weight = 0.03 * torch.randn(shapes[name], generator=generator)
            weights[name] = (weight + ("norm" in name)).bfloat16()
        file = f"model-{shard}.safetensors"
        save_file(weights, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(weights, file)
    content = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(content)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def child(options: argparse.Namespace) -> None:
    """One way of compressing, inside a limit where there is one; a line of JSON at the end."""
    import torch

    from bridge.assembled import save_assembled
    from bridge.checkpoint import save
    from bridge.compress import compress
    from bridge.methods import method
    from bridge.shards import Shards
    from mech.load import load

    importlib.import_module("transformers.models.llama.modeling_llama")  # before what is counted

    time.perf_counter = lambda: 0.0  # shards hold seconds, which are those of no other run
    torch.set_num_threads(1)
    limit = options.limit * MB if options.limit else private() + options.beyond * MB
    if options.way != "free":
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    out, started = Path(options.out), time.monotonic()
    loaded = load(options.model, on_disk=options.way == "disk")
    generator = torch.Generator().manual_seed(0)
    batches = list(torch.randint(2, 512, (4, 64), generator=generator).split(2))
    shards = Shards(out / "shards")
    done = compress(loaded.model, method(options.method)(), batches, shards=shards)
    between = time.monotonic()
    folder = out / "model"
    if options.way == "disk":
        save_assembled(loaded.model, shards, loaded.tokenizer, folder, {}, form=options.form)
    else:
        save(loaded.model, loaded.tokenizer, folder, {}, form=options.form)
    says = {
        "limit": limit,
        "peak resident": status("VmHWM"),
        "compress seconds": round(between - started, 1),
        "save seconds": round(time.monotonic() - between, 1),
        "linears": len(done.rows),
    }
    sys.stdout.write(json.dumps(says) + "\n")


def start(options: argparse.Namespace, way: str, model: Path, out: Path) -> subprocess.Popen:
    out.mkdir(exist_ok=True)
    given = [f"--{name}={getattr(options, name)}" for name in ("limit", "beyond", "method", "form")]
    command = [sys.executable, __file__, *given, f"--way={way}", f"--model={model}", f"--out={out}"]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def killed(process: subprocess.Popen, shards: Path, blocks: int) -> int:
    """Kill the process when so many blocks are done; how many it had done."""
    while process.poll() is None and len(list(shards.glob("block-*.safetensors"))) < blocks:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    errors = process.communicate()[1]
    assert process.returncode == -signal.SIGKILL, errors
    return len(list(shards.glob("block-*.safetensors")))


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 by file; of a shard, that of its numbers, its notes come in any order."""
    from safetensors import safe_open

    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if file.name.startswith("block-"):
            with safe_open(file, framework="pt", backend="pread") as opened:
                found[name] = opened.metadata()["sha256"]
            continue
        with file.open("rb") as stream:
            found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--d-model", type=int, default=1024)
    parser.add_argument("--d-mlp", type=int, default=2560)
    parser.add_argument("--layers", type=int, default=67)
    parser.add_argument("--limit", type=int, default=512, help="MiB of private memory in all")
    parser.add_argument(
        "--beyond", type=int, default=0, help="MiB over what imports take (--limit 0)"
    )
    parser.add_argument("--method", default="wanda")
    parser.add_argument("--form", default="dense")
    parser.add_argument("--kill-at", type=int, default=0, help="blocks after which to kill it once")
    parser.add_argument("--way", choices=["disk", "free", "memory"])
    parser.add_argument("--model")
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.way:
        child(options)
        return 0
    with tempfile.TemporaryDirectory() as root:
        model, disk, memory = (Path(root) / name for name in ("model", "disk", "memory"))
        model.mkdir()
        says: dict[str, object] = {
            "folder": make(model, options.d_model, options.d_mlp, options.layers)
        }
        if options.kill_at:
            run = start(options, "disk", model, disk)
            says["killed after"] = killed(run, disk / "shards", options.kill_at)
        for way, out in (("disk", disk), ("free", memory)):
            text, errors = (run := start(options, way, model, out)).communicate()
            if run.returncode:
                sys.stderr.write(errors)
                return 1
            says[way] = json.loads(text)
        control = start(options, "memory", model, Path(root) / "control")
        says["control"] = (control.communicate()[1].strip() or "nothing said").splitlines()[-1]
        died = control.returncode != 0 and "memory" in str(says["control"]).lower()
        says["control died"] = died
        ours, theirs = sums(disk), sums(memory)
        says["files"], says["equal"] = len(ours), ours == theirs
        says["differ"] = sorted(n for n in ours.keys() | theirs if ours.get(n) != theirs.get(n))[:5]
    sys.stdout.write(json.dumps(says) + "\n")
    return int(not (died and says["equal"]))


if __name__ == "__main__":
    sys.exit(main())
