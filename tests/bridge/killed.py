"""Runs that are killed with SIGKILL, at random times or at a named step, and then go on.

A script, so that it has one thread and may fork: model and libraries are loaded once, and each
run is a fork of it. Prints a line of JSON; the exit status is 1 where any run ended elsewhere
than the one that nobody killed.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from bridge.checkpoint import content_hash
from bridge.compress import compress
from bridge.compression import restore
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda
from bridge.shards import Shards
from mech.blocks import decoder_blocks
from mech.load import load
from mech.tokens import encode, windows

MOST = 4  # kills of one run, after which it is let alone


class Run(NamedTuple):
    """What is compressed: a fork of this process does it once."""

    model: Any
    method: Any
    batches: list[torch.Tensor]

    def digest(self, shards: Shards | None) -> str:
        """Of every number of the compressed model, and of every line of the account."""
        done = compress(self.model, self.method, self.batches, shards=shards)
        rows = repr([row._replace(seconds=0.0) for row in done.rows])
        return hashlib.sha256((content_hash(self.model) + rows).encode()).hexdigest()


def tiny() -> Run:
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=36, intermediate_size=52, num_hidden_layers=4,
        num_attention_heads=6, num_key_value_heads=2, attention_bias=True,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    batches = list(torch.randint(3, 97, (6, 17)).split(2))
    return Run(model, OATS(iterations=10), batches)


def demo(text: str) -> Run:
    loaded = load("smollm2")
    ids = encode(loaded.tokenizer, Path(text).read_text()[:20_000])
    return Run(loaded.model, Wanda(), list(windows(ids, 64, 4).split(2)))


def fork(
    run: Run, folder: Path | None, out: Path, before: Callable[[], None] = lambda: None
) -> int:
    """Start the run in a process of its own; its digest is in `out` when it ends."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        before()
        out.write_text(run.digest(None if folder is None else Shards(folder, lambda _: None)))
        status = 0
    finally:
        os._exit(status)


def ended(child: int, come: Callable[[], bool] | None = None, seconds: float = 0.0) -> bool:
    """Whether it came to its end; it is killed so many seconds after `come`."""
    limit = None
    while come is not None:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        if limit is None and come():
            limit = time.monotonic() + seconds
        if limit is not None and time.monotonic() >= limit:
            os.kill(child, signal.SIGKILL)
            # It may have ended in between: then that was no kill.
            return not os.WIFSIGNALED(os.waitpid(child, 0)[1])
        time.sleep(0.0005)
    os.waitpid(child, 0)
    return True


def at_random(run: Run, root: Path, kills: int, expected: str, usual: float) -> dict[str, Any]:
    """Kills anywhere: after a random number of blocks, and a random time; then all are finished.

    By blocks and not by the clock alone, since a machine that others use is now fast, now slow.
    """
    rng, done, wrong, runs = random.Random(0), 0, 0, 0
    blocks: Counter[int] = Counter()
    halves = 0
    count = len(decoder_blocks(run.model))
    while done < kills:
        folder, out = root / f"random-{runs}", root / f"random-{runs}.txt"
        for attempt in range(MOST + 1):
            child = fork(run, folder, out)
            if attempt == MOST or done == kills:
                ended(child)
                break
            first = len(kept(folder))
            least = rng.randint(first, max(first, count - 1))
            if ended(child, partial(reached, folder, least), rng.random() * usual):
                break
            done += 1
            blocks[len(kept(folder))] += 1
            halves += bool(list(folder.glob("*.partial")))
        wrong += out.read_text() != expected
        runs += 1
    return {"kills": done, "runs": runs, "wrong": wrong, "halves": halves,
            "after blocks": {str(k): blocks[k] for k in sorted(blocks)}}  # fmt: skip


def reached(folder: Path, blocks: int) -> bool:
    return len(kept(folder)) >= blocks


def kept(folder: Path) -> list[Path]:
    return list(folder.glob("block-*.safetensors"))


def at_every_step(run: Run, root: Path, expected: str) -> dict[str, Any]:
    """Kills just before and after each wait for the disk: file, rename and folder apart."""
    kills = wrong = 0
    for step in range(2 * 100):
        folder, out = root / f"step-{step}", root / f"step-{step}.txt"
        child = fork(run, folder, out, lambda step=step: dies_at(step // 2, after=step % 2 == 1))
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            break
        kills += 1
        ended(fork(run, folder, out))
        wrong += out.read_text() != expected
    return {"kills": kills, "wrong": wrong}


def dies_at(call: int, *, after: bool) -> None:
    """From now on this process dies at a call of fsync, of which a file takes two."""
    fsync, calls = os.fsync, iter(range(10**9))

    def last(descriptor: int) -> None:
        if next(calls) == call:
            if after:
                fsync(descriptor)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = last


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--demo", help="the demo model, calibrated on the start of this text file")
    parser.add_argument("--steps", action="store_true", help="also at every wait for the disk")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = demo(options.demo) if options.demo else tiny()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # Here, so that forks find everything compiled; and once as they will do it.
        warm = compress(run.model, run.method, run.batches, shards=Shards(root / "warm"))
        restore(run.model, warm)
        expected, times = [], []
        for number, shards in enumerate([None, root / "whole"]):
            started = time.monotonic()
            ended(fork(run, shards, root / f"whole-{number}.txt"))
            times.append(time.monotonic() - started)
            expected.append((root / f"whole-{number}.txt").read_text())
        block = times[-1] / len(decoder_blocks(run.model))
        said: dict[str, Any] = {"seconds": round(times[-1], 3), "alike": len(set(expected)) == 1}
        said["random"] = at_random(run, root, options.kills, expected[0], block)
        if options.steps:
            said["steps"] = at_every_step(run, root, expected[0])
    sys.stdout.write(json.dumps(said) + "\n")
    wrong = said["random"]["wrong"] + said.get("steps", {"wrong": 0})["wrong"]
    return int(wrong > 0 or not said["alike"])


if __name__ == "__main__":
    sys.exit(main())
