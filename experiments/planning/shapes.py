"""The shapes of a model, from its config.json alone: no weights are read and none are made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from bridge import sites
from bridge.fused import parts
from mech.blocks import decoder_blocks
from mech.errors import BadInput
from mech.quiet import quiet
from mech.refusals import first_line

WIDTH = 4
"""Bytes of a number while it is compressed and as it is saved: `ctr` runs in float32."""


class Linear(NamedTuple):
    """One linear: its matrices (several where queries, keys and values are fused), what it reads.

    reads: linears of a block with one number here read one tensor. share: of the tokens, those
    that reach it (an expert sees what is routed to it).
    """

    parts: tuple[tuple[int, int], ...]
    bias: bool
    reads: int
    share: float = 1.0

    @property
    def d_in(self) -> int:
        """Columns."""
        return self.parts[0][1]

    @property
    def d_out(self) -> int:
        """Rows, of all matrices together."""
        return sum(rows for rows, _ in self.parts)

    @property
    def numbers(self) -> int:
        """Of the weight, without a bias."""
        return self.d_out * self.d_in


class Shape(NamedTuple):
    """What memory, disk and time depend on.

    blocks: the linears of each by name. numbers: of all tensors that a dense save holds, a tied
    head once. stored: bytes of a number in the folder's files. hidden, heads, d_head, vocabulary:
    of the language model.
    """

    name: str
    blocks: tuple[Mapping[str, Linear], ...]
    numbers: int
    outside: int
    stored: int
    hidden: int
    heads: int
    d_head: int
    vocabulary: int

    @property
    def linears(self) -> dict[str, Linear]:
        """Of all blocks."""
        return {name: linear for block in self.blocks for name, linear in block.items()}

    @property
    def weights(self) -> int:
        """Bytes of the model in memory."""
        return WIDTH * self.numbers


def shape_of(model: Path | str, select: str = "*") -> Shape:
    """The shapes of the model whose config.json lies in a folder, or is the file given.

    Raises:
        BadInput: there is none, it cannot be read, or `select` matches no linear.
    """
    path = Path(model).expanduser()
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise BadInput(f"{model}: no config.json there: give a folder that holds one, or the file")
    try:
        json.loads(file.read_text(encoding="utf-8"))
        with quiet(), torch.device("meta"):
            config = AutoConfig.from_pretrained(
                file, local_files_only=True, trust_remote_code=False
            )
            made = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            if not all(p.is_meta for p in made.parameters()):  # made elsewhere all the same
                nn.Module.to(made, device="meta")
                made.tie_weights()
            made.eval()
    except Exception as error:
        raise BadInput(f"{file} cannot be read: {first_line(error)}") from error
    return of_model(made, path.name or str(path), select)


def of_model(model: Any, name: str = "", select: str = "*") -> Shape:
    """The same of a model that is here, on the meta device or not."""
    found = sites._linears(model)
    chosen = sites.matching(found, select, "linear")
    reads = _reads(model, {name: found[name] for name in chosen})
    text = model.config.get_text_config(decoder=True)
    share = _share(text)
    blocks: list[dict[str, Linear]] = [{} for _ in decoder_blocks(model)]
    for key in chosen:
        linear: Any = found[key]
        rows = tuple((row, linear.in_features) for row in parts(model, key, linear))
        routed = share if ".experts." in key else 1.0
        blocks[sites.block_of(key)][key] = Linear(rows, linear.bias is not None, reads[key], routed)
    heads = text.num_attention_heads
    tensors = {id(t): t for t in model.state_dict(keep_vars=True).values()}
    inside = {id(t) for t in decoder_blocks(model).state_dict(keep_vars=True).values()}
    stored = getattr(model.config, "dtype", None) or torch.float32
    return Shape(
        name=name,
        blocks=tuple(blocks),
        numbers=sum(t.numel() for t in tensors.values()),
        outside=sum(t.numel() for key, t in tensors.items() if key not in inside),
        stored=stored.itemsize,
        hidden=text.hidden_size,
        heads=heads,
        d_head=getattr(text, "head_dim", None) or text.hidden_size // heads,
        vocabulary=text.vocab_size,
    )


def _share(text: Any) -> float:
    """Of the tokens, those that one expert of a mixture reads on average."""
    experts = getattr(text, "num_local_experts", None) or getattr(text, "num_experts", None)
    chosen = getattr(text, "num_experts_per_tok", None)
    return chosen / experts if experts and chosen else 1.0


def _reads(model: Any, linears: Mapping[str, nn.Module]) -> dict[str, int]:
    """Which linears of a block read one tensor: from a pass of the model without numbers.

    Where that pass is not possible (experts are chosen by numbers) every linear counts by itself,
    which is the most memory that it can be.
    """
    alone = {name: number for number, name in enumerate(linears)}
    seen: dict[str, int] = {}
    kept: list[Tensor] = []  # so that no other tensor takes an id

    def watcher(name: str) -> Any:
        def hook(_: nn.Module, args: tuple, kwargs: dict) -> None:
            x = args[0] if args else kwargs["input"]
            kept.append(x)
            seen[name] = id(x)

        return hook

    handles = [
        linear.register_forward_pre_hook(watcher(name), with_kwargs=True)
        for name, linear in linears.items()
    ]
    try:
        if not all(p.is_meta for p in model.parameters()):
            return alone
        with torch.no_grad(), quiet():
            model.base_model(input_ids=torch.zeros(1, 4, dtype=torch.long, device="meta"))
    except Exception:  # whatever a family does with numbers that are not there
        return alone
    finally:
        for handle in handles:
            handle.remove()
    order: dict[int, int] = {}
    return {
        name: order.setdefault(seen[name], len(order)) if name in seen else 10**6 + alone[name]
        for name in linears
    }
