"""Compress a model in place, all or nothing.  Written once, for every method."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor, nn

from bridge.compression import Compression, restore
from bridge.method import AnyMethod, ComponentMethod
from bridge.replace import check_finite
from bridge.seams import Ranks, Shards
from bridge.sites import left_dense, place, show
from bridge.spill import clear
from bridge.stream import evaluating
from bridge.walk import Walk
from bridge.watch import TokenWeights
from bridge.work import work
from mech.errors import BadInput
from mech.ondisk import on_disk
from mech.tokens import check_ids


def compress(
    model: nn.Module,
    method: AnyMethod,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    *,
    select: str = "*",
    token_weights: TokenWeights | None = None,
    shards: Shards | None = None,
    ranks: Ranks | None = None,
    spill: Path | None = None,
    advance: Callable[[str], None] | None = None,
) -> Compression:
    """Replace, in place, every selected linear by `method(weight, what its inputs looked like)`.

    Blocks are taken in order. The linears of a block are calibrated in one pass with the block
    still dense, on what the compressed blocks before it emit; then the block is run again,
    compressed, for the inputs of the next. The stream is carried at the block boundary: the
    model itself runs once. `select` is an fnmatch glob over names like
    "layers.3.self_attn.q_proj" (see `bridge.sites`); `batches` holds whole windows of token ids,
    no padding, of any sizes; `advance` is called with the name of every linear that is done.

    `method` is one for all linears, one of whole components (`bridge.component`), or a mapping
    from names to methods, in which what is not named stays dense. `token_weights`, one tensor
    of the shape of each batch, w_t >= 0, makes every second moment Σ_t w_t x_t x_tᵀ. `shards`
    keeps what is done, block by block, and gives it back. `ranks` are the processes that share
    the work; all of them call this with the same arguments. `spill` is a folder in which the
    carried stream waits, one batch of it in memory at a time; it is this run's alone.

    A model whose weights stay in its folder (`mech.ondisk`) is compressed with one block in memory:
    what is made of it goes into `shards`, without which it is refused, and the model is left as it
    was; `bridge.assembled` makes a checkpoint of the shards. Where a pass over the text runs out of
    memory it is made again with half the batches (`bridge.carried`; `Compression.halved`).

    Matrices that a family does not keep in linears (GPT-2's Conv1D, stacks of experts) are
    linears afterwards, until `restore`. What holds matrices and stays dense is in
    `Compression.left`.

    All or nothing: on any exception the model is as before. Raises BadInput, naming the linear,
    where a weight, a statistic or an output is not finite, where `select` or a name matches
    nothing, where a batch is empty or holds an id that the model has no embedding for, and
    where weights are negative or of another shape than the tokens; also for a method of whole
    components with token weights or ranks. Where one sequence does not fit into memory that is a
    BadInput too.
    """
    away = on_disk(model)
    if away and shards is None:
        raise BadInput("a model on disk has no place for operators: pass `shards`, a folder")
    asked = work(model, method, select)
    if not batches:
        raise BadInput("no calibration batches: pass at least one")
    for tokens in batches:
        check_ids(model, tokens)
    _check_weights(batches, token_weights)
    if token_weights is not None and isinstance(method, ComponentMethod):
        raise BadInput(
            "token weights are for methods of one linear: components watch for themselves"
        )
    if ranks is not None and isinstance(method, ComponentMethod):
        raise BadInput(f"{method!r} replaces whole components, which ranks do not share: use one")
    tell = advance or (lambda _: None)
    running = (
        nullcontext()
        if shards is None
        else shards.running(model, method, batches, select=select, token_weights=token_weights)
    )
    complete = False
    with evaluating(model), torch.no_grad(), running:
        # Only what is replaced: a stack of experts that stays dense stays the family's own.
        originals: dict[str, nn.Module] = {} if away else show(model, asked.linears)
        try:
            chosen = asked if away else work(model, method, select)
            if not away:
                originals = {**chosen.linears, **originals}
                for name, linear in chosen.linears.items():
                    check_finite(linear.weight, f"{name}: its weight")
            walk = Walk(model, chosen, shards, ranks, tell)
            rows = tuple(walk.rows(batches, token_weights, spill))
            complete = True
        finally:
            if not complete:
                place(model, originals)
            if spill is not None:
                clear(spill)
    tokens = sum(b.numel() for b in batches)
    gone = {row.name for row in rows}
    stood = show(model, asked.linears) if away else {}
    left = tuple(name for name in left_dense(model, select) if name not in gone)
    place(model, stood)
    return Compression(repr(method), rows, tokens, originals, left, walk.halved)


@contextmanager
def compressed(
    model: nn.Module,
    method: AnyMethod,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    *,
    select: str = "*",
    token_weights: TokenWeights | None = None,
) -> Iterator[Compression]:
    """The model compressed inside, dense again after."""
    compression = compress(model, method, batches, select=select, token_weights=token_weights)
    try:
        yield compression
    finally:
        restore(model, compression)


def _check_weights(batches: Sequence[Tensor], token_weights: TokenWeights | None) -> None:
    if token_weights is None:
        return
    if [w.shape for w in token_weights] != [tokens.shape for tokens in batches]:
        raise BadInput("token weights: pass one tensor a batch, of the shape of its tokens")
    if not all(bool((w.isfinite() & (w >= 0)).all()) for w in token_weights):
        raise BadInput("token weights: finite and at least 0")
    if not any(bool((w > 0).any()) for w in token_weights):
        raise BadInput("token weights: all are 0")
