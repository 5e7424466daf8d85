"""The few lines beside a saved model that say how it is loaded, and how it is not."""

from pathlib import Path

_DENSE = """An ordinary checkpoint: `from_pretrained` loads it, with or without the library that
made it. Zeros are stored as zeros: it is as large and as fast as the model that was compressed.
"""
_PACKED = """Packed weights. They are read by

```python
import bridge  # of the package catch-tag-release: before from_pretrained
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("this folder")
```

Without that import transformers stops at weights of another shape; it does not load. Fetch the
folder whole: `manifest.json` is checked. Products are simulated by dense ones: nothing is faster.
"""
_ADAPTER = """A dense model in `base` and low-rank terms in `adapter`; each is half of it.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("this folder/base")
model = PeftModel.from_pretrained(base, "this folder/adapter")
```

Servers that limit the rank of adapters need a limit of at least the largest `r` in
`adapter/adapter_config.json`.
"""
CARDS = {"dense": _DENSE, "packed": _PACKED, "base+lora": _ADAPTER}


def write_card(folder: Path, form: str) -> None:
    """README.md of a folder in this form."""
    (folder / "README.md").write_text(f"# A compressed model: {form}\n\n{CARDS[form]}")
