"""What llama.cpp's converter made of the dense form, loaded by ours and by transformers' reader.

    python tests/interop/others/read_gguf.py FOLDER

FOLDER/dense.gguf, in float32, beside FOLDER/dense: the same numbers, and the reference's logits.
"""

import os
import sys
import tempfile
from pathlib import Path

import torch
from compare import FLOAT32, reference, report

from mech.load import load


def main(folder: Path) -> None:
    """Compare the two models' parameters and the logits."""
    expected = reference(folder)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["CTR_CACHE"] = cache
        found = load(str(folder / "dense.gguf"))
        with torch.no_grad():
            logits = found.model(input_ids=torch.from_numpy(expected["ids"])).logits.numpy()
    dense = dict(load(str(folder / "dense")).model.named_parameters())
    same = sum(torch.equal(p, dense[name]) for name, p in found.model.named_parameters())
    sys.stdout.write(f"{same} of {len(dense)} parameters equal bit for bit\n")
    report("llama.cpp's converter, read by transformers", {"logits": logits}, expected, FLOAT32)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
