"""Compress the demo model a little and write it in every form, with what ours computes from it.

    python tests/interop/others/export.py FOLDER

OATS at 50% on W_Q and W_K of all layers. FOLDER/reference.safetensors: ids, the operators' logits,
and of the dense form, loaded again: logits, the stream before and after every block, α of
equation 1. The other programs here compare with it and import nothing of ours.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from bridge.checkpoint import save
from bridge.compress import compress
from bridge.methods import OATS
from experiments.text import read_text
from mech.capture import capture_blocks
from mech.load import load
from mech.probes.sinks import count_sinks, score
from mech.tokens import encode, windows

SEQ, CALIBRATION, COMPARED = 128, 8, 2


def main(folder: Path) -> None:
    """Write FOLDER/dense, FOLDER/lora, FOLDER/packed and FOLDER/reference.safetensors."""
    demo = load("smollm2")
    encoded = encode(demo.tokenizer, read_text(None, "calibration").text[:60_000])
    ids = windows(encoded, SEQ, CALIBRATION + COMPARED)
    # Stored before the compression: how far a forgotten adapter would be off.
    with torch.no_grad():
        before = demo.model(input_ids=ids[CALIBRATION:]).logits
    given = list(ids[:CALIBRATION].split(4))
    compress(demo.model, OATS(compression=0.5), given, select="*.self_attn.[qk]_proj")
    for name, form in {"dense": "dense", "lora": "base+lora", "packed": "packed"}.items():
        save(demo.model, demo.tokenizer, folder / name, {"made by": "tests/interop"}, form=form)
    compared = ids[CALIBRATION:]
    with torch.no_grad():
        operators = demo.model(input_ids=compared).logits
    dense = load(str(folder / "dense")).model
    with torch.no_grad():
        logits = dense(input_ids=compared).logits
    seen = capture_blocks(dense, compared, lambda b: (score(b.received), b.resid_pre, b.resid_post))
    resid = np.stack([seen[0][1], *(after for _, _, after in seen)])
    alpha = np.stack([each for each, _, _ in seen])
    reference = {
        "ids": compared,
        "before": before,
        "operators": operators,
        "logits": logits,
        "resid": torch.from_numpy(resid),
        "alpha": torch.from_numpy(alpha),
    }
    save_file({k: v.contiguous() for k, v in reference.items()}, folder / "reference.safetensors")
    first = count_sinks(alpha).first.sum()
    moved = float((operators - before).abs().max())
    sys.stdout.write(f"compression moves logits by {moved:.2f}; {first:.1f} first-token sinks\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
