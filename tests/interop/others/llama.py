"""llama.cpp itself runs what its converters made: the dense form, and the base with its adapter.

PYTHON-OF-ITS-VENV tests/interop/others/llama.py FOLDER

FOLDER/dense.gguf, dense-f16.gguf, base.gguf and adapter.gguf beside FOLDER/reference.safetensors:
logits, and nats a token of the compared text. In float32, keys and values too; what float16 rounds
in the file is told on a line of its own, and has to be smaller than what the compression moves.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from compare import FLOAT32, reference, report
from llama_cpp import GGML_TYPE_F32, Llama


def logits(file: Path, ids: np.ndarray, adapter: Path | None = None) -> np.ndarray:
    """(sequences, tokens, vocabulary): what llama.cpp computes of every sequence by itself."""
    model = Llama(
        str(file),
        lora_path=None if adapter is None else str(adapter),
        n_ctx=ids.shape[1],
        n_batch=ids.shape[1],
        n_ubatch=ids.shape[1],
        n_threads=1,
        n_threads_batch=1,
        type_k=GGML_TYPE_F32,  # float16 unless told
        type_v=GGML_TYPE_F32,
        logits_all=True,
        verbose=False,
    )
    found = []
    for row in ids.tolist():
        model.reset()
        model.eval(row)
        found.append(model.scores[: len(row)].copy())
    model.close()
    return np.stack(found)


def nats(found: np.ndarray, ids: np.ndarray) -> float:
    """Mean of −log softmax(logits_t)[ids_{t+1}], in float64."""
    wide = found[:, :-1].astype(np.float64)
    top = wide.max(-1, keepdims=True)
    log_sum = top[..., 0] + np.log(np.exp(wide - top).sum(-1))
    return float((log_sum - np.take_along_axis(wide, ids[:, 1:, None], -1)[..., 0]).mean())


def main(folder: Path) -> None:
    """Compare four runs with the reference."""
    expected = reference(folder)
    ids = expected["ids"]
    tool = f"llama.cpp of llama-cpp-python {version('llama-cpp-python')}"
    base, adapter = folder / "base.gguf", folder / "adapter.gguf"
    moved = float(np.abs(expected["before"] - expected["operators"]).max())
    moved /= float(np.abs(expected["operators"]).max())
    runs = [
        ("dense, float32", "logits", FLOAT32, (folder / "dense.gguf", ids)),
        ("dense, float16", "logits", moved / 10, (folder / "dense-f16.gguf", ids)),
        ("base + adapter, float32", "operators", FLOAT32, (base, ids, adapter)),
    ]
    for name, of, limit, given in runs:
        found = logits(*given)
        off = nats(found, ids) - nats(expected[of], ids)
        sys.stdout.write(f"{name}: {nats(found, ids):.6f} nats a token, {off:+.1e} from ours\n")
        report(f"{tool}, {name}", {of: found}, expected, limit)
    # Control: an adapter that is not applied is seen.
    alone = logits(base, ids)
    off = np.abs(alone - expected["operators"]).max() / np.abs(expected["operators"]).max()
    sys.stdout.write(f"base alone: {off:.1e}\n")
    if off < 100 * FLOAT32:
        sys.exit("control: the base without its adapter is not told from the base with it")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
