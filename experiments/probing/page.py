"""One prompt as one interactive page: every head's attention, its sinks, its tags.

The page is a file that needs nothing else: no server, no network. It shows one prompt, which is
an illustration; what holds on text is counted by `ctr probe`.
"""

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
import numpy as np
from jaxtyping import Bool, Float, Int
from markupsafe import Markup

from experiments.probing import page_codes
from experiments.probing.page_read import (
    BlockRead,
    coloured,
    massive_tokens,
    outlying,
    read_block,
)
from experiments.probing.page_tags import Tags, measured, strongest
from mech.errors import BadInput
from mech.probes import sinks

if TYPE_CHECKING:  # torch is imported when a prompt is read, not for --help
    from torch import Tensor

    from mech.load import Loaded

TAIL = 8
"""Tokens at the end that are never called sinks: nearly every head looks at its neighbours."""
ENTRIES = 12_000_000
"""Shares of attention that a page may hold: 32 MB of it."""


READ = 2000
"""Tokens to run for the tags, two sequences for each: a page is made in seconds."""


class PromptPage(NamedTuple):
    """What the page shows, as plain arrays. `depth` counts the blocks passed, so layer + 1.

    alpha: the sink score of each key, equation 1 (Gu et al. 2025, arXiv:2410.10781), over the
    queries that can see it; null: what uniform attention would give; sinks: where alpha exceeds
    epsilon, the last `tail` tokens never. share: each key's part of what the head writes.
    *_colour in [0, 1]: principal components of what a head writes (z) and of the stream, and
    head_share and stream_share the part of the variance they show. norm: Euclidean norm of the
    stream; peak and peak_dim: its largest entry, with sign; massive: where that passes both
    limits of Sun et al. 2024 (arXiv:2402.17762). tags: who reads the strongest tags.
    """

    model: str
    note: str
    tokens: list[str]
    epsilon: float
    tail: int
    pattern: Float[np.ndarray, "layer head query key"]
    alpha: Float[np.ndarray, "layer head key"]
    null: Float[np.ndarray, "layer key"]
    sinks: Bool[np.ndarray, "layer head key"]
    share: Float[np.ndarray, "layer head key"]
    head_colour: Float[np.ndarray, "layer head seq 3"]
    head_share: Float[np.ndarray, "layer head"]
    stream_colour: Float[np.ndarray, "depth seq 3"]
    stream_share: Float[np.ndarray, " depth"]
    norm: Float[np.ndarray, "depth seq"]
    peak: Float[np.ndarray, "depth seq"]
    peak_dim: Int[np.ndarray, "depth seq"]
    massive: Bool[np.ndarray, "depth seq"]
    tags: Tags


def page(seen: PromptPage) -> str:
    """The page as HTML text, which no token can break out of."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("experiments"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html").render(
        model=seen.model, n_tokens=len(seen.tokens), data=Markup(_inside_script(_payload(seen)))
    )


def _payload(seen: PromptPage) -> dict[str, Any]:
    plain = ("model", "note", "tokens", "epsilon", "tail")
    special = ("pattern", "head_colour", "stream_colour")
    arrays = {
        name: page_codes.packed(value)
        for name, value in seen._asdict().items()
        if name not in (*plain, *special, "tags")
    }
    arrays |= {f"tag_{k}": page_codes.packed(v) for k, v in seen.tags._asdict().items()}
    arrays["pattern"] = page_codes.packed(page_codes.triangle(seen.pattern))
    for name in ("head_colour", "stream_colour"):
        arrays[name] = page_codes.packed(np.rint(255 * getattr(seen, name)).astype(np.uint8))
    return {name: getattr(seen, name) for name in plain} | {"arrays": arrays}


def _inside_script(payload: dict[str, Any]) -> str:
    """JSON that holds no end of a script element, whatever its strings hold."""
    return json.dumps(payload, allow_nan=False).replace("<", "\\u003c")


def measure(
    loaded: "Loaded",
    ids: "Int[Tensor, ' seq']",
    epsilon: float = sinks.EPSILON,
    note: str = "",
    tags: int = 12,
) -> PromptPage:
    """Everything that the page shows of one prompt; at most `tags` are taken away in turn.

    Raises:
        BadInput: fewer than two tokens, or more than a page can hold; whatever `capture_blocks`
            and `head_weights` refuse.
    """
    from experiments.catching import shown
    from mech.capture import capture_blocks
    from mech.heads import head_weights

    _check_size(loaded, len(ids))
    model = loaded.model
    blocks = capture_blocks(
        model, ids[None], lambda block: read_block(block, head_weights(model, block.layer).W_O)
    )
    read = BlockRead(*(np.stack(column) for column in zip(*blocks, strict=True)))
    found = sinks.sinks(read.alpha, epsilon)
    found[..., max(1, len(ids) - TAIL) :] = False
    excess = read.alpha - read.null[:, None]
    resid = np.concatenate([read.resid_pre[:1], read.resid_post])
    stream = [coloured(state, outlying(state)) for state in resid]
    peak_dim = np.abs(resid).argmax(axis=-1)
    return PromptPage(
        model=loaded.name,
        note=note,
        tokens=shown(loaded.tokenizer, ids.tolist()),
        epsilon=epsilon,
        tail=TAIL,
        pattern=read.pattern,
        alpha=read.alpha,
        null=read.null,
        sinks=found,
        share=read.share,
        head_colour=read.colour,
        head_share=read.colour_share,
        stream_colour=np.array([colour for colour, _ in stream]),
        stream_share=np.array([share for _, share in stream]),
        norm=np.linalg.norm(resid, axis=-1),
        peak=np.take_along_axis(resid, peak_dim[..., None], axis=-1)[..., 0],
        peak_dim=peak_dim,
        massive=np.array([massive_tokens(state) for state in resid]),
        tags=measured(model, ids, read.z, strongest(excess, found, _at_most(tags, len(ids)))),
    )


def _check_size(loaded: "Loaded", seq: int) -> None:
    """Refuse what is no text and what a browser could not hold, before anything is read."""
    from mech.blocks import decoder_blocks

    if seq < 2:
        raise BadInput(f"a page shows two tokens at least, not {seq}: give a longer prompt")
    config = loaded.model.config.get_text_config()
    maps = len(decoder_blocks(loaded.model)) * config.num_attention_heads
    if maps * seq * (seq + 1) // 2 > ENTRIES:
        most = int((2 * ENTRIES / maps + 0.25) ** 0.5 - 0.5)
        raise BadInput(
            f"{maps} heads on {seq} tokens are more than a page can hold: give a prompt of at "
            f"most {most} tokens"
        )


def _at_most(tags: int, seq: int) -> int:
    return max(1, min(tags, READ // (2 * seq)))
