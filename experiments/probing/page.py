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
from mech.errors import BadInput
from mech.probes import massive, segments, sinks

if TYPE_CHECKING:  # torch is imported when a prompt is read, not for --help
    from torch import Tensor

    from mech.load import Loaded

TAIL = 8
"""Tokens at the end that are never called sinks: nearly every head looks at its neighbours."""
ENTRIES = 12_000_000
"""Shares of attention that a page may hold: 32 MB of it."""
ORDINARY = 100.0
"""A token with an activation above 100 and this many medians has no part in the colours."""


class PromptPage(NamedTuple):
    """What the page shows, as plain arrays. `depth` counts the blocks passed, so layer + 1.

    alpha: the sink score of each key, equation 1 (Gu et al. 2025, arXiv:2410.10781); sinks: where
    it exceeds epsilon, the last `tail` tokens never. *_colour in [0, 1]: principal components of
    what a head writes (z) and of the stream; *_share: the part of the variance they show. norm:
    Euclidean norm of the stream; peak and peak_dim: its largest entry, with sign; massive: where
    that passes both limits of Sun et al. 2024 (arXiv:2402.17762).
    """

    model: str
    note: str
    tokens: list[str]
    epsilon: float
    tail: int
    pattern: Float[np.ndarray, "layer head query key"]
    alpha: Float[np.ndarray, "layer head key"]
    sinks: Bool[np.ndarray, "layer head key"]
    head_colour: Float[np.ndarray, "layer head seq 3"]
    head_share: Float[np.ndarray, "layer head"]
    stream_colour: Float[np.ndarray, "depth seq 3"]
    stream_share: Float[np.ndarray, " depth"]
    norm: Float[np.ndarray, "depth seq"]
    peak: Float[np.ndarray, "depth seq"]
    peak_dim: Int[np.ndarray, "depth seq"]
    massive: Bool[np.ndarray, "depth seq"]


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
        if name not in (*plain, *special)
    }
    arrays["pattern"] = page_codes.packed(page_codes.triangle(seen.pattern))
    for name in ("head_colour", "stream_colour"):
        arrays[name] = page_codes.packed(np.rint(255 * getattr(seen, name)).astype(np.uint8))
    return {name: getattr(seen, name) for name in plain} | {"arrays": arrays}


def _inside_script(payload: dict[str, Any]) -> str:
    """JSON that holds no end of a script element, whatever its strings hold."""
    text = json.dumps(payload, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def measure(
    loaded: "Loaded", ids: "Int[Tensor, ' seq']", epsilon: float = sinks.EPSILON, note: str = ""
) -> PromptPage:
    """Everything that the page shows of one prompt.

    Raises:
        BadInput: fewer than two tokens, or more than a page can hold; whatever `capture` refuses.
    """
    from mech.capture import capture

    _check_size(loaded, len(ids))
    trace = capture(loaded.model, ids[None])
    resid, z = trace.resid[:, 0], trace.z[:, 0]
    alpha = sinks.score(sinks.received_of(trace))[:, 0]
    found = sinks.sinks(alpha, epsilon)
    found[..., max(1, len(ids) - TAIL) :] = False
    outlying = _tokens(massive.is_massive(trace.resid, ratio=ORDINARY))
    heads = [[_colours(h, outlying[layer]) for h in block] for layer, block in enumerate(z)]
    stream = [_colours(r, o) for r, o in zip(resid, outlying, strict=True)]
    peak_dim = np.abs(resid).argmax(axis=-1)
    return PromptPage(
        model=loaded.name,
        note=note,
        tokens=_shown(loaded, ids.tolist()),
        epsilon=epsilon,
        tail=TAIL,
        pattern=trace.pattern[:, 0],
        alpha=alpha,
        sinks=found,
        head_colour=np.array([[colour for colour, _ in row] for row in heads]),
        head_share=np.array([[share for _, share in row] for row in heads]),
        stream_colour=np.array([colour for colour, _ in stream]),
        stream_share=np.array([share for _, share in stream]),
        norm=np.linalg.norm(resid, axis=-1),
        peak=np.take_along_axis(resid, peak_dim[..., None], axis=-1)[..., 0],
        peak_dim=peak_dim,
        massive=_tokens(massive.is_massive(trace.resid)),
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


def _tokens(
    entries: Bool[np.ndarray, "depth batch seq d_model"],
) -> Bool[np.ndarray, "depth seq"]:
    """Where any entry of a token's state is marked, for a batch of one."""
    return np.logical_or.reduce(entries[:, 0], axis=-1)


def _colours(
    vectors: Float[np.ndarray, "seq d"], outlying: Bool[np.ndarray, " seq"]
) -> tuple[Float[np.ndarray, "seq 3"], float]:
    """Colours of the ordinary tokens after the first, and the variance they show; others grey.

    The first token and the massive ones would take all the contrast. Grey throughout where
    fewer than three tokens or dimensions are left.
    """
    ordinary = ~outlying
    ordinary[0] = False
    colour = np.full((len(vectors), 3), 0.5)
    components = min(3, int(ordinary.sum()) - 1, vectors.shape[1])
    if components < 2:
        return colour, 0.0
    found = segments.segments(vectors[ordinary], components)
    colour[ordinary] = found.colour
    return colour, float(found.share.sum())


def _shown(loaded: "Loaded", ids: list[int]) -> list[str]:
    """Tokens as text: bytes decoded, and a word's leading space kept as the token has it."""
    shown = []
    for token in loaded.tokenizer.convert_ids_to_tokens(ids):
        text = loaded.tokenizer.convert_tokens_to_string([token])
        # Tokenizers of pieces mark the space with ▁ and drop it from a lone token.
        shown.append(" " + text.lstrip() if token.startswith("▁") else text)
    return shown
