"""Every loader of files that is fuzzed, by name, and how its files are changed."""

from collections.abc import Mapping

import model_files
import mutate
import operator_files
import run_files
import toy_files
from target import Target

TARGETS: Mapping[str, Target] = {
    "adapter": Target(model_files.adapter, mutate.tensors),
    "certificate": Target(toy_files.certificate, mutate.json_bytes),
    "claimed": Target(operator_files.claimed, mutate.json_bytes),
    "config": Target(run_files.config, mutate.json_bytes),
    "gguf": Target(model_files.gguf, mutate.blind),
    "journal": Target(model_files.journal, mutate.lines),
    "ledger": Target(run_files.ledger, mutate.json_bytes),
    "manifest": Target(model_files.manifest, mutate.json_bytes),
    "memory": Target(run_files.memory, mutate.tensors),
    "packed": Target(operator_files.packed, mutate.json_bytes),
    "plan": Target(model_files.plan, mutate.json_bytes),
    "recipe": Target(model_files.recipe, model_files.recipe_changed),
    "result": Target(run_files.result, mutate.json_bytes),
    "shards": Target(operator_files.shards, mutate.tensors),
    "spec": Target(operator_files.spec, mutate.tensors),
    "store": Target(run_files.store, run_files.sqlite_changed),
    "sweep": Target(toy_files.sweep, mutate.json_bytes),
    "texts": Target(run_files.texts, mutate.lines),
    "training": Target(toy_files.training, mutate.tensors),
    "weights": Target(model_files.weights, mutate.tensors),
}
