"""nnsight reads the dense form: logits, streams and sinks are those that ours reads.

PYTHON-OF-ITS-VENV tests/interop/others/nns.py FOLDER
"""

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from compare import FLOAT32, alpha, reference, report
from nnsight import TransformersModel
from transformers import AutoTokenizer


def main(folder: Path) -> None:
    """Compare FOLDER/dense with FOLDER/reference.safetensors."""
    expected = reference(folder)
    dense = str(folder / "dense")
    model = TransformersModel(
        dense,
        task="text-generation",
        tokenizer=AutoTokenizer.from_pretrained(dense),
        device_map="cpu",
        attn_implementation="eager",
    )
    blocks = model.model.layers
    streams, patterns = [], []
    with torch.no_grad(), model.trace(torch.from_numpy(expected["ids"])):
        streams = list().save()
        patterns = list().save()
        streams.append(blocks[0].input)
        for block in blocks:
            patterns.append(block.self_attn.output[1])
            streams.append(block.output)
        logits = model.lm_head.output.save()
    found = {
        "logits": logits.numpy(),
        "resid": torch.stack([*streams]).numpy(),
        "alpha": alpha(torch.stack([*patterns]).numpy()),
    }
    report(f"nnsight {version('nnsight')}", found, expected, FLOAT32)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
