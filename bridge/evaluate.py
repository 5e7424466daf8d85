"""Perplexity with a definition, and the per-token losses that paired comparisons need."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bridge.stream import evaluating
from mech.errors import BadInput
from mech.memory import by_halves
from mech.ondisk import where
from mech.tokens import check_ids


class TokenLosses(NamedTuple):
    """-log p of every scored token, in nats; its index in the text; the window that scored it."""

    nll: Float[Tensor, " tokens"]
    position: Int[Tensor, " tokens"]
    window: Int[Tensor, " tokens"]


class Perplexity(NamedTuple):
    """exp of the mean loss a token.

    nll: mean over tokens, in nats. standard_error: of `nll`, with windows as the independent
    units (tokens of a window are correlated); NaN for a single window. definition: how the
    tokens were scored, in words; two numbers compare only if these agree.
    """

    nll: float
    ppl: float
    standard_error: float
    tokens: int
    windows: int
    definition: str


class Difference(NamedTuple):
    """Mean of b - a over the same tokens, in nats, and its standard error over windows."""

    nll: float
    standard_error: float
    windows: int


def perplexity(
    model: nn.Module,
    ids: Int[Tensor, " seq"],
    *,
    context: int,
    stride: int,
    prefix: int | None = None,
    advance: Callable[[str], None] | None = None,
) -> Perplexity:
    """exp( -1/N Σ_t log p(x_t | window before t) ), token by token.

    Windows of `context` tokens start every `stride` tokens; each scores the tokens that no
    earlier one has scored, so every token is scored once, with at least context - stride tokens
    before it (the first window excepted). With `prefix`, every window starts with that id (a
    BOS), which takes one of the `context` places and is not scored. A token with nothing before
    it in its window is not scored: without a prefix that is the first of the text and, at
    stride = context, the first of every window. Errors as for `token_losses`.
    """
    losses = token_losses(
        model, ids, context=context, stride=stride, prefix=prefix, advance=advance
    )
    return summary(losses, definition(context=context, stride=stride, prefix=prefix))


def definition(*, context: int, stride: int, prefix: int | None) -> str:
    """How `perplexity` scores with these arguments, in one line."""
    start = "no prefix" if prefix is None else f"each window starts with id {prefix}"
    return (
        f"token perplexity: windows of {context} tokens every {stride}, each token scored once, "
        f"{start}; a token with nothing before it in its window is not scored"
    )


@torch.no_grad()
def token_losses(
    model: nn.Module,
    ids: Int[Tensor, " seq"],
    *,
    context: int,
    stride: int,
    prefix: int | None = None,
    advance: Callable[[str], None] | None = None,
) -> TokenLosses:
    """-log p of each scored token of `ids`, as `perplexity` defines it, in order, on the CPU.

    `advance` is called with a line for every window. Raises BadInput where the sizes make no
    windows or exceed the model's, where an id is not in its vocabulary, where a loss is not a
    number, and where there is no memory for a window.
    """
    lead = [] if prefix is None else [prefix]
    room = context - len(lead)
    _check(model, ids, context, stride, room, lead)
    parts: list[TokenLosses] = []
    begins = range(0, max(len(ids) - (room - stride), 1), stride)
    scored = 0
    with evaluating(model):
        for number, begin in enumerate(begins):
            end = min(begin + room, len(ids))
            # The first token of a window is predicted only where a prefix stands before it.
            first = max(scored, begin + 1 - len(lead))
            window = torch.cat([ids.new_tensor(lead), ids[begin:end]])
            nll = _scored(model, window, end - first, f"window {number}")
            if not bool(nll.isfinite().all()):
                raise BadInput(f"the loss of window {number} (tokens {begin}..{end}) is not finite")
            positions = torch.arange(first, end)
            parts.append(TokenLosses(nll, positions, torch.full_like(positions, number)))
            scored = end
            if advance is not None:
                advance(f"window {number + 1} of {len(begins)}")
    return TokenLosses(*(torch.cat(column) for column in zip(*parts, strict=True)))


def summary(losses: TokenLosses, definition: str) -> Perplexity:
    """The mean over tokens of `losses`, and its standard error over windows."""
    mean, error, windows = _clustered(losses.nll, losses.window)
    try:
        ppl = math.exp(mean)
    except OverflowError:
        ppl = math.inf
    return Perplexity(mean, ppl, error, len(losses.nll), windows, definition)


def paired(a: TokenLosses, b: TokenLosses) -> Difference:
    """b - a, token by token. Raises BadInput where they do not score the same tokens.

    Examples:
        >>> which = torch.arange(4), torch.tensor([0, 0, 1, 1])
        >>> dense = TokenLosses(torch.tensor([1.0, 2.0, 3.0, 4.0]), *which)
        >>> pruned = TokenLosses(torch.tensor([1.5, 2.5, 4.0, 5.0]), *which)
        >>> paired(dense, pruned)
        Difference(nll=0.75, standard_error=0.25, windows=2)
    """
    if not torch.equal(a.position, b.position) or not torch.equal(a.window, b.window):
        raise BadInput("losses of different tokens cannot be paired; score both alike")
    return Difference(*_clustered(b.nll - a.nll, a.window))


def _clustered(
    values: Float[Tensor, " tokens"], window: Int[Tensor, " tokens"]
) -> tuple[float, float, int]:
    """Mean over tokens; standard error of this ratio of sums over windows; windows."""
    values = values.double()
    mean = values.mean()
    names, index = window.unique(return_inverse=True)
    count = len(names)
    deviation = torch.zeros(count, dtype=torch.float64).index_add_(0, index, values - mean)
    if count == 1:
        return float(mean), math.nan, 1
    error = (deviation.square().sum() * count / (count - 1)).sqrt() / len(values)
    return float(mean), float(error), count


# Positions whose log-softmax is taken at a time: a vocabulary of 256k in float32 is 1 MB each.
CHUNK = 128


def _scored(
    model: nn.Module, window: Int[Tensor, " seq"], count: int, what: str
) -> Float[Tensor, " tokens"]:
    """`_tail_losses`; one line that names the window where there is no memory for it."""
    (nll,) = by_halves(lambda one: _tail_losses(model, one[0], count), window[None], what)
    return nll


def _tail_losses(
    model: nn.Module, window: Int[Tensor, " seq"], count: int
) -> Float[Tensor, " tokens"]:
    """-log p of the last `count` tokens of a window, in float64 on the CPU."""
    window = window.to(where(model))
    logits = model(input_ids=window[None], use_cache=False).logits[0]
    begin = len(window) - count
    pieces = [
        nn.functional.cross_entropy(some.float(), wanted, reduction="none").double().cpu()
        for some, wanted in zip(
            logits[begin - 1 : -1].split(CHUNK), window[begin:].split(CHUNK), strict=True
        )
    ]
    return torch.cat(pieces)


def _check(
    model: nn.Module,
    ids: Int[Tensor, " seq"],
    context: int,
    stride: int,
    room: int,
    lead: list[int],
) -> None:
    if room < 2 - len(lead) or not 0 < stride <= room:
        raise BadInput(
            f"context {context}, stride {stride}: windows need two tokens and a stride of at "
            f"least 1 and at most the {room} tokens of text in a window"
        )
    config = getattr(model, "config", None)
    text = config.get_text_config(decoder=True) if config is not None else None
    longest = getattr(text, "max_position_embeddings", None)
    if longest is not None and context > longest:
        raise BadInput(f"context {context}: the model was made for at most {longest} tokens")
    if len(ids) + len(lead) < 2:
        raise BadInput(f"{len(ids)} tokens: there is nothing to predict")
    check_ids(model, torch.cat([ids.new_tensor(lead), ids]))
