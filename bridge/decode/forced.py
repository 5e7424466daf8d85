"""Losses of a text that is decoded token by token, as `generate` would if it chose that text."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from bridge.stream import evaluating
from mech.errors import BadInput
from mech.tokens import check_ids


@torch.no_grad()
def decoded_losses(
    model: PreTrainedModel, ids: Int[Tensor, "rows seq"], prompt: int
) -> Float[Tensor, "rows steps"]:
    """-log p(x_{t+1} | x_≤t) for t = prompt … T - 2, each from one step of decoding, in nats.

    The first `prompt` tokens are one call that fills the cache; every later token is a call of
    its own. Inside `sparsified` these are a dense prefill and gated steps, and so the losses of
    those tokens in one pass with sparse_from = prompt / T, but for rounding (which may move a
    channel across its threshold). Raises BadInput where nothing is left to decode.
    """
    seq = ids.shape[1]
    if not 0 < prompt < seq - 1:
        raise BadInput(
            f"a prompt of {prompt} of {seq} tokens: at least 1, and two left to be decoded"
        )
    check_ids(model, ids)
    ids = ids.to(model.device)
    found = []
    with evaluating(model):
        cache = model(input_ids=ids[:, :prompt], use_cache=True).past_key_values
        for at in range(prompt, seq - 1):
            out = model(input_ids=ids[:, at : at + 1], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logits = out.logits[:, -1].float()
            found.append(nn.functional.cross_entropy(logits, ids[:, at + 1], reduction="none"))
    return torch.stack(found, dim=1).cpu()
