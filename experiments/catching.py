"""Do the tokens that one sink caught lie together: on one prompt, and on text?"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.caught import DRAWS, Colouring, Prompted, Tagged
from experiments.intervals import interval
from experiments.measure import longest
from experiments.settings import BadOption, Bos
from mech import tokens
from mech.capture import capture
from mech.load import Loaded
from mech.probes import catch, segments, sinks
from mech.trace import Trace

TAIL = 8  # tokens at the end of a short prompt that nearly every head seems to attend to
RELEASE = 3  # blocks between a head and the stream in which its tag is looked for
SHORTEST = 4  # tokens of a prompt: after the first, as many as there are colours
WANTED = 3  # sinks of a pictured head, the first token's among them
JUDGES = 6  # sequences that must be left to judge a head on


def look(loaded: Loaded, prompt: str, bos: Bos, epsilon: float) -> Prompted | None:
    """The prompt's trace at the head whose sinks are clearest; None where no head has any.

    Of the heads with at least three sinks, the first token's among them, it is the one whose
    weakest sink is strongest; where no head has three, two or one will do. Colours do not choose.

    Raises:
        BadOption: the prompt is empty, has too few tokens to colour, or more than the model was
            made for.
        BadInput: the BOS policy cannot be met.
    """
    if not prompt.strip():
        raise BadOption("--prompt is empty: give a sentence")
    encoded = tokens.encode(loaded.tokenizer, prompt, bos=bos)
    most = longest(loaded.model)
    if not SHORTEST <= len(encoded.ids) <= most:
        raise BadOption(
            f"--prompt has {len(encoded.ids)} tokens with BOS: give {SHORTEST} to {most} of them"
        )
    trace = capture(loaded.model, encoded.ids[None])
    scores = sinks.score(sinks.received_of(trace))[:, 0]
    found = sinks.sinks(scores, epsilon)
    found[..., max(1, len(encoded.ids) - TAIL) :] = False
    number = np.minimum(found.sum(axis=-1), WANTED) * found[..., 0]
    if not number.any():
        return None
    weakest = np.where(found, scores, 1.0).min(axis=-1) * (number > 0)
    layer, head = np.unravel_index(np.argmax(number + 0.9 * weakest), number.shape)
    at = np.flatnonzero(found[layer, head])
    return Prompted(
        tokens=_shown(loaded.tokenizer, encoded.ids.tolist()),
        layer=int(layer),
        head=int(head),
        pattern=trace.pattern[layer, 0, head],
        sinks=at,
        colourings=list(_colourings(trace, int(layer), int(head), at)),
    )


def _shown(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """Tokens as text: bytes decoded, and a word's leading space kept as the token has it."""
    shown = []
    for token in tokenizer.convert_ids_to_tokens(ids):
        text = tokenizer.convert_tokens_to_string([token])
        # Tokenizers of pieces mark the space with ▁ and drop it from a lone token.
        shown.append(" " + text.lstrip() if token.startswith("▁") else text)
    return shown


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
        trace = capture(model, ids[index : index + 1])
        judged = [_judge(*pair) for pair in _arrays(trace, layer, head, at)]
        above.append([eta2 - null[0] for eta2, null in judged])
    if len(above) < JUDGES:
        return None
    reads, writes, released = (interval(np.array(column)) for column in zip(*above, strict=True))
    return Tagged(layer, head, (reads, writes, released))


def _colourings(
    trace: Trace, layer: int, head: int, at: Int[np.ndarray, " sink"]
) -> Iterator[Colouring]:
    later = min(layer + RELEASE, len(trace.resid) - 1)
    names = (
        f"what the head reads: the stream entering block {layer}",
        f"what the head writes: output of head {head} of block {layer}",
        f"released: the stream after {later} blocks",
    )
    for what, (vectors, labels) in zip(names, _arrays(trace, layer, head, at), strict=True):
        # The first token is massive: in the components it would take all the contrast.
        coloured = segments.segments(vectors[1:])
        rgb = np.vstack([np.full(3, 0.85), coloured.colour])
        eta2, null = _judge(vectors, labels)
        yield Colouring(what, rgb, coloured.share, eta2, null)


def _arrays(
    trace: Trace, layer: int, head: int, at: Int[np.ndarray, " sink"]
) -> Iterator[tuple[Float[np.ndarray, "seq d"], Int[np.ndarray, " seq"]]]:
    """What the head reads, what it writes, the stream later; each token's sink, -1 for sinks."""
    labels = catch.caught_by(trace.pattern[layer, 0, head], at)
    labels[at] = -1
    later = min(layer + RELEASE, len(trace.resid) - 1)
    for vectors in (trace.resid[layer, 0], trace.z[layer, 0, head], trace.resid[later, 0]):
        yield vectors, labels


def _judge(
    vectors: Float[np.ndarray, "seq d"], labels: Int[np.ndarray, " seq"]
) -> tuple[float, Float[np.ndarray, " 2"]]:
    """η² of the tokens that are no sinks; median and 95% quantile of its contiguous null."""
    tokens_caught = labels >= 0
    vectors, labels = vectors[tokens_caught], labels[tokens_caught]
    null = catch.contiguous_null(vectors, len(np.unique(labels)), draws=DRAWS)
    return catch.variance_explained(vectors, labels), np.quantile(null, [0.5, 0.95])
