"""Parts of a model that come and go: their weights are read, used and dropped together."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    convert_and_load_state_dict_in_model,
    rename_source_key,
)
from transformers.modeling_utils import LoadStateDictConfig

from mech.errors import BadInput
from mech.quiet import quiet
from mech.refusals import not_finite, place
from mech.shards import Stored


class Slot(NamedTuple):
    """One weight that is away: the module and name it hangs at, and what hangs there instead."""

    module: nn.Module
    name: str
    away: Tensor

    def put(self, tensor: Tensor) -> None:
        module = self.module
        place: Any = module._parameters if self.name in module._parameters else module._buffers
        place[self.name] = tensor

    def get(self) -> Tensor:
        return getattr(self.module, self.name)


class Reader:
    """Which tensors of the files make which weights of `model`, by transformers' own rules."""

    def __init__(
        self,
        model: PreTrainedModel,
        tensors: dict[str, Stored],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.model, self.tensors, self.dtype, self.device = model, tensors, dtype, device
        self.rules = get_model_conversion_mapping(model)
        # Tied weights are one tensor that hangs in several places.
        self.homes: dict[int, list[Slot]] = defaultdict(list)
        self.named: dict[int, set[str]] = defaultdict(set)
        for path, module in model.named_modules():
            for slot in slots(module):
                self.homes[id(slot.away)].append(slot)
                self.named[id(slot.away)].add(f"{path}.{slot.name}" if path else slot.name)
        self.sources: dict[str, list[str]] = defaultdict(list)
        known = dict.fromkeys((name for names in self.named.values() for name in names), True)
        for key in tensors:
            for target in self._targets(key, known):
                self.sources[target].append(key)

    def keys(self, wanted: list[Slot]) -> list[str]:
        """Names in the files of all that the weights of these slots are made of."""
        names = [name for slot in wanted for name in sorted(self.named[id(slot.away)])]
        return list(dict.fromkeys(key for name in names for key in self.sources[name]))

    def check(self, slot: Slot, weight: Tensor) -> None:
        """Raises BadInput, with file and block, where `weight` of `slot` is not finite."""
        if _finite(weight):
            return
        keys = self.keys([slot])
        # Of the tensors that make it, the one that is at fault already in its own dtype.
        at_fault = next((key for key in keys if not _finite(self.tensors[key][...])), keys[0])
        raise BadInput(not_finite(at_fault, weight.dtype, self.tensors[at_fault].file))

    def read(self, keys: list[str]) -> None:
        """Hang the weights that these tensors make in their places in the model."""
        rules: Any = self.rules
        lazy: Any = {key: self.tensors[key] for key in keys}
        # An entry for the disk, which no weight matches, makes transformers read one tensor after
        # the other, and not several at once in threads: less memory, and no stacks of threads.
        where: Any = {"": self.device, "-": "disk"}
        config = LoadStateDictConfig(dtype=self.dtype, device_map=where, weight_mapping=rules)
        with quiet():
            convert_and_load_state_dict_in_model(self.model, lazy, config)

    def _targets(self, key: str, known: dict[str, bool]) -> list[str]:
        renamings = [rule for rule in self.rules if isinstance(rule, WeightRenaming)]
        converters = [rule for rule in self.rules if isinstance(rule, WeightConverter)]
        prefix = self.model.base_model_prefix
        target, pattern = rename_source_key(key, renamings, converters, prefix, known)
        if target not in known and key in known:
            return [key]
        if pattern is None:
            return [target]
        converter = next(rule for rule in converters if pattern in rule.source_patterns)
        first, *_ = converter.target_patterns
        return [target.replace(first, other) for other in converter.target_patterns]


class Part:
    """A block, or a module outside the blocks with what hangs at it: in memory while held."""

    def __init__(self, reader: Reader, module: nn.Module, *, whole: bool) -> None:
        modules = module.modules() if whole else [module]
        self.reader = reader
        self.slots = [slot for each in modules for slot in slots(each)]
        self.keys = reader.keys(self.slots)
        self._held = 0
        self._padding: int | None = None

    def enter(self) -> None:
        """Hold the weights: read by the first who holds them."""
        if not self._held:
            try:
                self.reader.read(self.keys)
                self._settle()
            except BaseException:
                self._away()
                raise
        self._held += 1

    def leave(self) -> None:
        """Let go: the last who held them drops them."""
        self._held -= 1
        if not self._held:
            self._away()

    def bring(self, module: nn.Module, args: tuple) -> None:
        """`enter`, as a hook before a forward pass."""
        self.enter()

    def drop(self, module: nn.Module, args: tuple, output: object) -> None:
        """`leave`, as a hook after it."""
        if self._held:  # not where the reading failed
            self.leave()

    def rows(self, module: Any, args: tuple) -> tuple | None:
        """`E[ids] = E[u][i]`, u the ids that occur, once each: only these rows are read."""
        ids = args[0] if args else None
        weight = self.slots[0]
        source = self.reader.tensors[self.keys[0]]
        kind = type(module)
        plain = kind is nn.Embedding or kind.__name__.endswith("ScaledWordEmbedding")
        only = len(self.slots) == len(self.keys) == 1 and source.shape == weight.away.shape
        if self._held or not (plain and only and isinstance(ids, Tensor)):
            return self.enter()
        used, index = ids.unique(return_inverse=True)
        found = source.rows(used.cpu()).to(self.reader.device, weight.away.dtype)
        self.reader.check(weight, found)
        weight.put(nn.Parameter(found, requires_grad=False))
        self._held += 1
        # Its number is that of another row now; it only matters to gradients.
        module.padding_idx = None
        return (index, *args[1:])

    def _settle(self) -> None:
        """Check the weights that were read, and hang each wherever it is tied to."""
        for slot in self.slots:
            homes = self.reader.homes[id(slot.away)]
            found = next((t for t in (home.get() for home in homes) if not t.is_meta), None)
            if found is None:
                raise BadInput(self._unmade(slot))
            self.reader.check(slot, found.requires_grad_(False))
            for home in homes:
                home.put(found)

    def _unmade(self, slot: Slot) -> str:
        name = min(self.reader.named[id(slot.away)])
        files = {str(self.reader.tensors[key].file) for key in self.reader.keys([slot])}
        return (
            f"{name} ({place(name)}) of shape {tuple(slot.away.shape)} cannot be made of what "
            f"{', '.join(sorted(files)) or 'the files'} hold: they do not belong to config.json"
        )

    def _away(self) -> None:
        for slot in self.slots:
            for home in self.reader.homes[id(slot.away)]:
                home.put(home.away)


def slots(module: nn.Module) -> Iterator[Slot]:
    """What hangs at `module` itself and has no numbers now."""
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None and tensor.is_meta:
            yield Slot(module, name, tensor)


def _finite(weight: Tensor) -> bool:
    # Least and largest are NaN where an entry is: one pass, and no second tensor of the size.
    return not weight.is_floating_point() or bool(torch.stack(weight.aminmax()).isfinite().all())
