"""TransformerLens reads the dense form: logits, streams and sinks are those that ours reads.

PYTHON-OF-ITS-VENV tests/interop/others/lens.py FOLDER
"""

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from compare import FLOAT32, alpha, reference, report
from transformer_lens.model_bridge import TransformerBridge


def main(folder: Path) -> None:
    """Compare FOLDER/dense with FOLDER/reference.safetensors."""
    expected = reference(folder)
    model = TransformerBridge.boot_transformers(str(folder / "dense"), device="cpu")
    with torch.no_grad():
        logits, cache = model.run_with_cache(torch.from_numpy(expected["ids"]))
    layers = range(model.cfg.n_layers)
    streams = [cache["blocks.0.hook_resid_pre"]]
    streams += [cache[f"blocks.{layer}.hook_resid_post"] for layer in layers]
    patterns = torch.stack([cache[f"blocks.{layer}.attn.hook_pattern"] for layer in layers])
    found = {
        "logits": logits.numpy(),
        "resid": torch.stack(streams).numpy(),
        "alpha": alpha(patterns.numpy()),
    }
    report(f"transformer-lens {version('transformer-lens')}", found, expected, FLOAT32)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
