"""From text to token ids and windows, with the first token decided, printed and stored.

The first token is the attention sink of nearly every model, so whether it is a
beginning-of-sequence token (BOS) is never left to a tokenizer's default: tokenizers add it,
do not add it, or have none.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from mech.errors import BadInput


class Encoded(NamedTuple):
    """A text as ids; `bos` says whether ids[0] is the BOS, `decision` says why."""

    ids: Int[Tensor, " seq"]
    bos: bool
    decision: str


def encode(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    bos: Literal["auto", "require", "never"] = "auto",
) -> Encoded:
    """ids = [BOS?] + tokens(text), with at most one BOS at the front.

    `auto` puts the tokenizer's BOS first if it has one; `require` refuses a tokenizer that has
    none; `never` removes it. Raises BadInput on an empty text.
    """
    if bos not in ("auto", "require", "never"):
        raise BadInput(f"unknown BOS policy {bos!r}: choose auto, require or never")
    # The tokenizer's own idea of special tokens is left out: some add BOS, some EOS, some none.
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids if text else []
    if not ids:
        raise BadInput("the text is empty: give at least one token")
    return Encoded(*_decide(tokenizer, ids, bos))


def windows(encoded: Encoded, seq: int, count: int | None = None) -> Int[Tensor, "batch seq"]:
    """Consecutive windows of `seq` tokens that share no token of the text.

    Where the text begins with BOS every window does, and holds seq - 1 tokens of text.
    `count` windows, or without it all that fit. Raises BadInput where the text is too short.

    Examples:
        >>> import torch
        >>> encoded = Encoded(torch.tensor([1, 5, 6, 7, 8, 9]), True, "prepended <s> (id 1)")
        >>> windows(encoded, 3).tolist()
        [[1, 5, 6], [1, 7, 8]]
    """
    head = encoded.ids[:1] if encoded.bos else encoded.ids[:0]
    body = encoded.ids[len(head) :]
    width = seq - len(head)
    if width < 1 or (count is not None and count < 1):
        raise BadInput(f"cannot cut {count or 'any'} windows of {seq} tokens: ask for more")
    wanted = count if count is not None else max(len(body) // width, 1)
    if wanted * width > len(body):
        raise BadInput(
            f"the text has {len(body)} tokens and {wanted} windows of {seq} need {wanted * width}: "
            "give a longer text, or ask for fewer or shorter windows"
        )
    rows = body[: wanted * width].reshape(wanted, width)
    return torch.cat([head.expand(wanted, len(head)), rows], dim=1)


def check_ids(model: nn.Module, ids: Int[Tensor, "..."]) -> None:
    """Raise BadInput where there are no ids, or one that `model` has no embedding for."""
    if ids.numel() == 0:
        raise BadInput("no tokens to run the model on")
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    d_vocab = getattr(embeddings, "num_embeddings", None)
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or (d_vocab is not None and high >= d_vocab):
        bad = low if low < 0 else high
        raise BadInput(f"token id {bad} is outside the vocabulary of {d_vocab}: wrong tokenizer?")


def _decide(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], policy: str
) -> tuple[Tensor, bool, str]:
    bos_id = tokenizer.bos_token_id
    if not isinstance(bos_id, int):
        if policy == "require":
            raise BadInput(
                f"{type(tokenizer).__name__} has no BOS token: use the policy auto or never"
            )
        return torch.tensor(ids), False, "none: the tokenizer has no BOS"
    body = ids[next((i for i, token in enumerate(ids) if token != bos_id), len(ids)) :]
    name = f"{tokenizer.bos_token} (id {bos_id})"
    if policy != "never":
        decision = f"prepended {name}" if body == ids else f"the text begins with {name}"
        return torch.tensor([bos_id, *body]), True, decision
    if not body:
        raise BadInput(f"the text is nothing but {name}: nothing is left without it")
    return torch.tensor(body), False, f"{'left out' if body == ids else 'removed'} {name}"
