"""The files of a checkpoint, written block by block from a model on disk."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from bridge import adapter
from bridge.checkpoint import Form, base_of
from bridge.dressed import Dressed, dressed
from bridge.fold import folded
from bridge.manifest import count
from bridge.opened import closed
from bridge.packed import achieved, packed, root, specs, state
from bridge.quantizer import PackedConfig
from bridge.seams import Shards
from bridge.sites import operators
from bridge.toggle import swap
from bridge.written import Layout, Written
from mech.blocks import decoder_blocks
from mech.errors import BadInput
from mech.ondisk import part_of, resident
from mech.shards import stored

State = dict[str, Tensor]


class Files:
    """Every tensor once, in the order in which names are hashed, with one block in memory.

    The packed form passes over the blocks before that too: its shapes are those of the operators.
    """

    def __init__(self, model: PreTrainedModel, shards: Shards, folder: Path, form: Form) -> None:
        self.model, self.shards, self.folder, self.form = model, shards, folder, form
        self.base, self.root = base_of(folder, form), root(model)
        self.hash, self.packs = hashlib.sha256(), hashlib.sha256()
        self.names: dict[int, list[str]] = {}
        self.specs: dict[str, Any] = {}
        self.counts: dict[str, dict[str, int]] = {}
        self.ranks: dict[str, int] = {}
        self.tensors = ""

    @property
    def layers(self) -> dict[str, dict[str, int]]:
        """What is stored for each linear, in order of depth."""
        return {name: self.counts[name] for layer in sorted(self.names)
                for name in self.names[layer]}  # fmt: skip

    def write(self, max_shard_size: str) -> None:
        """All files of weights, and the configuration.

        Raises BadInput where a shard is damaged, where the form has nothing to hold (no operator
        to pack, no low-rank term), and where a file does not read as what was written.
        """
        layout, parameters = self._layout()
        pattern = "model{suffix}.safetensors"
        split = split_torch_state_dict_into_shards(
            dict(layout), filename_pattern=pattern, max_shard_size=max_shard_size
        )
        named = split.filename_to_tensors.items()
        files = Written({self.base / f: {n: layout[n] for n in names} for f, names in named})
        for piece in self._pieces():
            for name, tensor in piece.items():
                files.put(name, tensor)
            del piece  # before the next is read
        files.check()
        self.tensors = self.hash.hexdigest()
        if split.is_sharded:
            about = {"total_parameters": parameters, **split.metadata}
            index = {"metadata": about, "weight_map": split.tensor_to_filename}
            text = json.dumps(index, indent=2, sort_keys=True) + "\n"
            (self.base / "model.safetensors.index.json").write_text(text)
        if self.form == "base+lora":
            self._adapter()
        self._configure()

    def _configure(self) -> None:
        config: Any = self.model.config
        if self.form == "packed":
            if not self.specs:
                raise BadInput(
                    "the model holds no operators: compress it before it is saved packed"
                )
            config.quantization_config = PackedConfig(
                linears=self.specs,
                sha256=self.packs.hexdigest(),
                dtype=str(self.model.dtype).removeprefix("torch."),
                manifest=True,
            )
        apart = self.folder / "configuration"  # transformers removes files beside what it writes
        try:
            # With no tensors at all it writes its configurations, and nothing else.
            self.model.save_pretrained(apart, state_dict={})
        finally:
            vars(config).pop("quantization_config", None)
        for file in apart.iterdir():
            file.rename(self.base / file.name)
        apart.rmdir()

    def _layout(self) -> tuple[Layout, int]:
        """Dtype and shape of every tensor of the files, and the number of parameters."""
        stock = _untied(self.model)
        parameters = self.model.num_parameters()
        if self.form != "packed":
            return _like(revert_weight_conversion(self.model, stock)), parameters
        plain, ours, opened = dict(stock), {}, {}
        for layer in range(len(decoder_blocks(self.model))):
            before = self.model.num_parameters()
            with dressed(self.model, self.shards, layer):
                own = _like(self._of_block(layer, state(self.model)))
                there = set(self.model.state_dict())
                parameters += self.model.num_parameters() - before
                self.specs |= specs(self.model) if operators(self.model) else {}
                paths = tuple(f"{self._path(n)}." for n in operators(self.model))
            ours |= {name: t for name, t in own.items() if name.startswith(paths)}
            opened |= {name: t for name, t in own.items() if name not in there and name not in ours}
            gone = {n for n in plain if self._inside(layer, n)} - (
                own.keys() - ours.keys() - opened.keys()
            )
            plain = {name: t for name, t in plain.items() if name not in gone}
        return _like(plain) | ours | opened, parameters

    def _pieces(self) -> Iterator[State]:
        """The tensors of the files, a block or a tensor outside the blocks at a time."""
        names = sorted(self.model.state_dict())
        filed = set(_untied(self.model))
        done: set[int] = set()
        for name in names:
            layer = self._layer(name)
            if layer is None:
                found = part_of(self.model, name.rpartition(".")[0])
                with resident(self.model if found is None else found[0]):
                    path, _, last = name.rpartition(".")
                    tensor = getattr(self.model.get_submodule(path), last).detach()
                    count(self.hash, name, tensor)
                    yield self._as_filed({name: tensor} if name in filed else {})
            elif layer not in done:
                done.add(layer)
                with dressed(self.model, self.shards, layer) as here:
                    self.names[layer] = here.names
                    yield self._block(layer, here)

    def _block(self, layer: int, here: Dressed) -> State:
        """What a block is in the files; counted and hashed on the way."""
        if self.form == "packed":
            self._pack()
            self._account(layer, here)
            return self._of_block(layer, state(self.model))
        linears: Mapping[str, nn.Linear] = {}
        if self.form == "dense":
            linears = folded(self.model)
        else:
            linears, terms = adapter.split_some(self.model)
            adapter.refuse_experts(self.model, terms)
            self._terms(layer, terms)
        with ExitStack() as stack:
            stack.enter_context(swap(self.model, linears) if linears else nullcontext())
            self.counts |= achieved(self.model, here.names)
            stack.enter_context(closed(self.model) if here.shown else nullcontext())
            return self._as_filed(self._account(layer))

    def _pack(self) -> None:
        """The digest of config.json goes on, by names as they are sorted."""
        named = {
            f"{n}.{key}": t for n, parts in packed(self.model).items() for key, t in parts.items()
        }
        for name in sorted(named):
            count(self.packs, name, named[name])

    def _account(self, layer: int, here: Dressed | None = None) -> State:
        """The tensors of a block as it stands, in the hash of them all."""
        if here is not None:
            self.counts |= achieved(self.model, here.names)
        found = self._of_block(layer, self.model.state_dict())
        for name in sorted(found):
            count(self.hash, name, found[name])
        return found

    def _as_filed(self, found: State) -> State:
        return found if self.form == "packed" else revert_weight_conversion(self.model, found)

    def _terms(self, layer: int, terms: Mapping[str, adapter.Parted]) -> None:
        """Keep a block's low-rank terms in a file of their own until all ranks are known."""
        if terms:
            self.ranks |= {name: len(term.right) for name, term in terms.items()}
            save_file(adapter.weights(self.model, terms), self._part(layer))

    def _adapter(self) -> None:
        """PEFT's one file, made of the blocks' files."""
        if not self.ranks:
            raise adapter.without_terms()
        parts = [self._part(layer) for layer in sorted(self.names) if self._part(layer).exists()]
        tensors = stored(parts)
        (self.folder / adapter.ADAPTER).mkdir()
        target = self.folder / adapter.ADAPTER / adapter.WEIGHTS
        rank = max(self.ranks.values())
        shapes = {n: adapter.padded_shape(n, t.shape, rank) for n, t in tensors.items()}
        files = Written({target: {n: _empty(t.dtype, shapes[n]) for n, t in tensors.items()}})
        for name, tensor in tensors.items():
            files.put(name, adapter.padded(name, tensor[...], rank))
        files.check()
        for part in parts:
            part.unlink()
        adapter.write_config(self.model, self.ranks, rank, self.folder / adapter.ADAPTER)

    def _part(self, layer: int) -> Path:
        return self.folder / f"terms-{layer}.safetensors"

    def _layer(self, name: str) -> int | None:
        inside = name.removeprefix(f"{self.root}.")
        return int(inside.partition(".")[0]) if inside != name else None

    def _inside(self, layer: int, name: str) -> bool:
        return name.startswith(f"{self.root}.{layer}.")

    def _of_block(self, layer: int, found: Mapping[str, Tensor]) -> State:
        return {name: t for name, t in found.items() if self._inside(layer, name)}

    def _path(self, name: str) -> str:
        return f"{self.root}.{name.removeprefix('layers.')}"


def _untied(model: PreTrainedModel) -> State:
    """The state without second names, and without what the family never saves."""
    ignored = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    found = {name: t for name, t in model.state_dict().items() if name not in ignored}
    return remove_tied_weights_from_state_dict(found, model)


def _like(found: Mapping[str, Tensor]) -> State:
    return {name: _empty(t.dtype, t.shape) for name, t in found.items()}


def _empty(dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, device="meta")
