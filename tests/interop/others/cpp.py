"""llama.cpp itself computes what ours computes, from files that its own converter made.

    PYTHON-WITH-llama-cpp-py-sync tests/interop/others/cpp.py FOLDER

Beside FOLDER/reference.safetensors: FOLDER/dense.gguf of the dense form, and FOLDER/base.gguf with
FOLDER/adapter.gguf of base+lora. Keys and values are kept in float32.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from compare import reference, report
from llama_cpp_py_sync import Llama

LIMIT = 1e-3
"""llama.cpp's products sum in another order, with float16 tables in softmax and SiLU."""


def logits(model: Llama, ids: list[int]) -> np.ndarray:
    """Of every position; the wrapper's own calls keep those of the last alone."""
    lib, ffi = model._lib, model._ffi
    lib.llama_memory_clear(lib.llama_get_memory(model._ctx), True)
    batch = lib.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for at, token in enumerate(ids):
        batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, at, 1
        batch.seq_id[at][0], batch.logits[at] = 0, 1
    assert lib.llama_decode(model._ctx, batch) == 0
    size = len(ids) * model.n_vocab
    found = np.frombuffer(ffi.buffer(lib.llama_get_logits(model._ctx), 4 * size), np.float32)
    lib.llama_batch_free(batch)
    return found.reshape(len(ids), -1).copy()


def computed(file: Path, ids: torch.Tensor, adapter: Path | None = None) -> np.ndarray:
    """Logits of every sequence by the model of a GGUF file, with an adapter or without."""
    model = Llama(str(file), n_ctx=ids.shape[1], n_threads=1, type_k="f32", type_v="f32")
    if adapter is not None:
        lib, ffi = model._lib, model._ffi
        lora = lib.llama_adapter_lora_init(model._model, str(adapter).encode())
        assert lora != ffi.NULL, adapter
        loras = ffi.new("struct llama_adapter_lora *[]", [lora])
        assert lib.llama_set_adapters_lora(model._ctx, loras, 1, ffi.new("float[]", [1.0])) == 0
    return np.stack([logits(model, row) for row in ids.tolist()])


def main(folder: Path) -> None:
    """Compare dense.gguf, and base.gguf with adapter.gguf, with the reference."""
    expected = reference(folder)
    tool, ids = f"llama.cpp (llama-cpp-py-sync {version('llama-cpp-py-sync')})", expected["ids"]
    found = {"logits": computed(folder / "dense.gguf", ids)}
    report(tool + ", dense", found, expected, LIMIT)
    found = {"operators": computed(folder / "base.gguf", ids, folder / "adapter.gguf")}
    report(tool + ", base+lora", found, expected, LIMIT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
