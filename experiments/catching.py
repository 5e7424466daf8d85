"""Do the tokens that one sink caught lie together: on one prompt, and on text?"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.caught import DRAWS, Caught, Colouring, Control, Prompted, Tagged, tail
from experiments.intervals import interval
from experiments.measure import longest
from experiments.probing.figures.maps import tiled
from experiments.probing.figures.stems import Stem, stem
from experiments.probing.figures.timelines import Levels, level, rows
from experiments.settings import BadOption, Bos
from mech import tokens
from mech.attention import pattern_rows
from mech.capture import capture_blocks
from mech.errors import BadInput
from mech.load import Loaded
from mech.probes import catch, massive, segments, sinks
from mech.trace import BlockTrace, Heads

RELEASE = 3  # blocks between a head and the stream in which its tag is looked for
SHORTEST = 4  # tokens of a prompt: after the first, as many as there are colours
WANTED = 3  # sinks of a pictured head, the first token's among them
JUDGES = 6  # sequences that must be left to judge a head on
UNHEARD = 1e12  # entries of a stream: trained models stay below 1e6, squares of 1e19 overflow
ORDINARY = 100.0  # an activation above 100 and this many medians makes a token no ordinary one


class Read(NamedTuple):
    """What is kept of one sequence for some heads of one block."""

    reads: Float[np.ndarray, "seq d_model"]
    writes: Float[np.ndarray, "head seq d_head"]
    pattern: Float[np.ndarray, "head query key"]
    later: Float[np.ndarray, "seq d_model"]


def encoded(loaded: Loaded, prompt: str, bos: Bos) -> tokens.Encoded:
    """The prompt's ids.

    Raises:
        BadOption: too few tokens to colour, or more than the model was made for.
        BadInput: the BOS policy cannot be met.
    """
    found = tokens.encode(loaded.tokenizer, prompt, bos=bos)
    most, count = longest(loaded.model), len(found.ids)
    if not SHORTEST <= count <= most:
        raise BadOption(
            f"the prompt has {count} tokens, BOS with it: give {SHORTEST} to {most} of them "
            "(--prompt or --prompt-file)"
        )
    return found


def look(loaded: Loaded, prompt: tokens.Encoded, epsilon: float) -> Prompted:
    """The prompt's levels, and its trace at the head whose sinks are clearest.

    Of the heads with at least three sinks, the first token's among them, it is the one whose
    weakest sink is strongest; where no head has three, two or one will do. Colours do not choose.
    Raises BadInput where the stream holds what no trained model's does, NaN and inf too.
    """
    ids = prompt.ids
    blocks = capture_blocks(loaded.model, ids[None], _block)
    scores = np.stack([block.alpha for block in blocks])
    found = sinks.sinks(scores, epsilon)
    heads = found.mean(axis=1)
    found[..., max(1, len(ids) - tail(len(ids))) :] = False
    cosine, norm = zip(blocks[0].before, *(block.after for block in blocks), strict=True)
    return Prompted(
        bos=prompt.decision,
        tokens=shown(loaded.tokenizer, ids.tolist()),
        levels=Levels(np.stack(cosine), np.stack(norm), heads),
        rows=rows(heads, tail(len(ids))),
        caught=_caught(loaded.model, ids, scores, found),
    )


class _Block(NamedTuple):
    """α of every head and key of one block; cosine and norm of each token before it and after."""

    alpha: np.ndarray
    before: tuple[np.ndarray, np.ndarray]
    after: tuple[np.ndarray, np.ndarray]


def _block(block: BlockTrace) -> _Block:
    largest = float(np.abs(block.resid_post).max())
    if not largest < UNHEARD:
        raise BadInput(
            f"after block {block.layer} the residual stream holds {largest:.0e}: no such model was "
            "trained; fetch its files again"
        )
    alpha = sinks.score(block.received, block.reach)[0]
    return _Block(alpha, level(block.resid_pre[0]), level(block.resid_post[0]))


def _caught(
    model: PreTrainedModel,
    ids: Int[Tensor, " seq"],
    scores: Float[np.ndarray, "layer head key"],
    found: Bool[np.ndarray, "layer head key"],
) -> Caught | None:
    """Choose the head by its sinks, read its block, colour."""
    number = np.minimum(found.sum(axis=-1), WANTED) * found[..., 0]
    if not number.any():
        return None
    weakest = np.where(found, scores, 1.0).min(axis=-1) * (number > 0)
    layer, head = (
        int(i) for i in np.unravel_index(np.argmax(number + 0.9 * weakest), number.shape)
    )
    at = np.flatnonzero(found[layer, head])
    resting = scores[layer][:, at].sum(axis=1)
    resting[head] = np.inf
    other = int(np.argmin(resting))
    chosen = [head] if other == head else [head, other]
    read = _read(model, ids, layer, chosen)
    labels = _labels(read.pattern[0], at)
    colourings = [
        _colouring(what, vectors, labels)
        for what, vectors in zip(_names(layer, head, len(found)), _arrays(read), strict=True)
    ]
    control = None
    if other != head:
        what = f"control: output of head {other}, which rests least on these sinks"
        colouring = _colouring(what, read.writes[1], labels)
        control = Control(other, tiled(read.pattern[1]), colouring)
    drawn = list(_stems(read, layer, head, at))
    return Caught(layer, head, at, tiled(read.pattern[0]), colourings, control, drawn)


def shown(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """Tokens as text: bytes decoded, and a word's leading space kept as the token has it."""
    texts = []
    for token in tokenizer.convert_ids_to_tokens(ids):
        text = tokenizer.convert_tokens_to_string([token])
        # Tokenizers of pieces mark the space with ▁ and drop it from a lone token.
        texts.append(" " + text.lstrip() if token.startswith("▁") else text)
    return texts


def tagged(
    model: PreTrainedModel,
    ids: Int[Tensor, "sequences seq"],
    scores: Float[np.ndarray, "layer sequences head key"],
    epsilon: float,
) -> Tagged | None:
    """η² above its null for the head that rests most on later sinks, on other sequences.

    The even sequences choose, the odd ones judge; of those only the ones with two sinks at
    least. None where fewer than six sequences are left: an interval of less would be too narrow.
    """
    found = sinks.sinks(scores, epsilon)
    found[..., 1:] &= sinks.guarded(found.shape[-1])[1:]
    resting = np.where(found, scores, 0.0)[:, ::2, :, 1:]
    grid = resting.sum(axis=(1, 3))
    layer, head = (int(i) for i in np.unravel_index(np.argmax(grid), grid.shape))
    above = []
    for index in range(1, len(ids), 2):
        at = np.flatnonzero(found[layer, index, head])
        if len(at) < 2:
            continue
        read = _read(model, ids[index], layer, [head])
        labels = _labels(read.pattern[0], at)
        judged = [_judge(vectors, labels) for vectors in _arrays(read)]
        above.append([eta2 - null[0] for eta2, null in judged])
    if len(above) < JUDGES:
        return None
    reads, writes, released = (interval(np.array(column)) for column in zip(*above, strict=True))
    return Tagged(layer, head, (reads, writes, released))


def _read(model: PreTrainedModel, ids: Int[Tensor, " seq"], layer: int, heads: list[int]) -> Read:
    """One pass that keeps these heads of this block, and the stream RELEASE blocks later."""

    here: list[np.ndarray] = []
    after: list[np.ndarray] = []

    def keep(block: BlockTrace) -> None:
        if block.layer == layer:
            pattern = pattern_rows(_only(block.heads, heads), np.arange(len(ids)))
            here.extend((block.resid_pre[0], block.z[0, heads], pattern[0]))
        if layer <= block.layer < layer + RELEASE:
            after[:] = [block.resid_post[0]]

    capture_blocks(model, ids[None], keep)
    reads, writes, pattern = here
    return Read(reads, writes, pattern, after[0])


def _only(heads: Heads, chosen: list[int]) -> Heads:
    """The call of some query heads alone, each with the key head that it reads."""
    group = heads.query.shape[1] // heads.key.shape[1]
    shared = [head // group for head in chosen]
    return heads._replace(
        query=heads.query[:, chosen],
        key=heads.key[:, shared],
        value=heads.value[:, shared],
        lse=heads.lse[:, chosen],
        sink=None if heads.sink is None else heads.sink[chosen],
    )


def _names(layer: int, head: int, layers: int) -> tuple[str, str, str]:
    return (
        f"what the head reads: the stream entering block {layer}",
        f"what the head writes: output of head {head} of block {layer}",
        f"released: the stream after {min(layer + RELEASE, layers)} blocks",
    )


def _arrays(read: Read) -> Iterator[Float[np.ndarray, "seq d"]]:
    """What the head reads, what it writes, the stream later."""
    yield from (read.reads, read.writes[0], read.later)


def _labels(
    pattern: Float[np.ndarray, "query key"], at: Int[np.ndarray, " sink"]
) -> Int[np.ndarray, " seq"]:
    """Each token's sink, -1 for the sinks themselves."""
    labels = catch.caught_by(pattern, at)
    labels[at] = -1
    return labels


def _colouring(
    what: str, vectors: Float[np.ndarray, "seq d"], labels: Int[np.ndarray, " seq"]
) -> Colouring:
    # The first token is massive: in the components it would take all the contrast.
    coloured = segments.segments(vectors[1:], min(3, vectors.shape[1]))
    rgb = np.vstack([np.full(3, 0.85), coloured.colour])
    eta2, null = _judge(vectors, labels)
    return Colouring(what, rgb, coloured.share, eta2, null)


def _judge(
    vectors: Float[np.ndarray, "seq d"], labels: Int[np.ndarray, " seq"]
) -> tuple[float, Float[np.ndarray, " 2"]]:
    """η² of the tokens that are no sinks; median and 95% quantile of its contiguous null."""
    tokens_caught = labels >= 0
    vectors, labels = vectors[tokens_caught], labels[tokens_caught]
    null = catch.contiguous_null(vectors, len(np.unique(labels)), draws=DRAWS)
    return catch.variance_explained(vectors, labels), np.quantile(null, [0.5, 0.95])


def _stems(read: Read, layer: int, head: int, at: Int[np.ndarray, " sink"]) -> Iterator[Stem]:
    """Ordinary tokens and sinks of the stream that the head reads, and of what it writes."""
    ordinary = ~massive.is_massive(read.reads[None, None], ratio=ORDINARY)[0, 0].any(axis=-1)
    ordinary[at] = False
    if ordinary.any():
        yield stem(f"stream entering block {layer}: ordinary tokens", read.reads[ordinary])
    yield stem(f"stream entering block {layer}: the sinks", read.reads[at])
    if ordinary.any():
        yield stem(f"output of head {head}: ordinary tokens", read.writes[0, ordinary])
