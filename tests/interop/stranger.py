"""A program that has none of our packages reads what we wrote: FOLDER, as conftest.py filled it.

It prints, of each form, the largest difference of logits from ours and whether generated ids are
equal; of the adapter the same again after merging, and without it; of packed, the refusal.
"""

import json
import sys

OURS = {"bridge", "mech", "experiments", "toy", "ctr_kernels"}


class Absent:
    """As if ours were not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OURS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())

import peft  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

torch.set_num_threads(1)
folder = sys.argv[1]
expected = load_file(f"{folder}/reference.safetensors")


def load(name):
    return AutoModelForCausalLM.from_pretrained(f"{folder}/{name}", local_files_only=True)


def compared(model):
    """max |logits - ours|, and whether greedy decoding gives the ids that ours gave."""
    ids = expected["ids"]
    with torch.no_grad():
        off = (model(input_ids=ids).logits - expected["logits"]).abs().max().item()
        told = model.generate(input_ids=ids[:1], max_new_tokens=7, do_sample=False)
    return {"logits": off, "told": torch.equal(told, expected["told"])}


def words(name):
    return AutoTokenizer.from_pretrained(f"{folder}/{name}")("w1 w2")["input_ids"]


said = {"dense": compared(load("dense")), "words": [words("dense"), words("lora/base")]}
base = load("lora/base")
said["base alone"] = compared(base)
adapted = peft.PeftModel.from_pretrained(base, f"{folder}/lora/adapter")
said["adapted"] = compared(adapted)
said["merged"] = compared(adapted.merge_and_unload())
try:
    load("packed")
except RuntimeError as error:
    said["packed"] = str(error)
assert not OURS & {name.partition(".")[0] for name in sys.modules}
sys.stdout.write(json.dumps(said) + "\n")
