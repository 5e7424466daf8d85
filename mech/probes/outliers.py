"""Outlier features: coordinates of the stream that are large at nearly all tokens.

Unlike a massive activation, which is a scalar at one token, an outlier feature is a dimension.
Three rules, which name different dimensions: |x_j| > 6 · the token's median, which needs no
scale; the absolute one of Dettmers et al. 2022, "LLM.int8()", arXiv:2208.07339, section 4.1;
and |w_j − mean w| > 3 σ of Kovaleva et al. 2021, "BERT Busters", arXiv:2105.06990, which reads
weights (of norms) and is applied to a statistic of activations as well: the standard deviation
over tokens, as the tracer of bitsandbytes does.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

FACTOR = 6.0
SHARE = 0.95
LARGE = 6.0
IN_LAYERS, IN_TOKENS = 0.25, 0.06
SIGMAS = 3.0


def prevalence(
    resid: Float[np.ndarray, "depth batch seq d_model"],
    ordinary: Bool[np.ndarray, "depth batch seq"],
    *,
    factor: float = FACTOR,
) -> Float[np.ndarray, "depth d_model"]:
    """P(|x_j| > factor · median_i |x_i|) over the ordinary tokens of each depth.

    `ordinary` leaves tokens out, usually those with a massive activation, so that a few of them
    do not pass for a feature of all. NaN at a depth that has no ordinary token.
    """
    size = np.abs(resid)
    above = size > factor * np.median(size, axis=-1, keepdims=True)
    hits = (above & ordinary[..., None]).sum(axis=(1, 2))
    tokens = ordinary.sum(axis=(1, 2))[:, None]
    return np.divide(hits, tokens, out=np.full(hits.shape, np.nan), where=tokens > 0)


def outlier_dims(
    resid: Float[np.ndarray, "depth batch seq d_model"],
    ordinary: Bool[np.ndarray, "depth batch seq"],
    *,
    factor: float = FACTOR,
    share: float = SHARE,
) -> Bool[np.ndarray, "depth d_model"]:
    """prevalence ≥ share: the outlier features of each depth."""
    return prevalence(resid, ordinary, factor=factor) >= share


def int8_outlier_dims(
    states: Float[np.ndarray, "layer batch seq d_model"],
    *,
    threshold: float = LARGE,
    layers: float = IN_LAYERS,
    tokens: float = IN_TOKENS,
) -> Bool[np.ndarray, " d_model"]:
    """|x_j| ≥ threshold somewhere in ≥ `layers` of the layers and in ≥ `tokens` of all tokens.

    The paper reads the inputs of the attention projections and of the first feed-forward
    matrix, which are normed; on a residual stream the absolute threshold means more.
    """
    large = np.abs(states) >= threshold
    count = states.shape[1] * states.shape[2]
    return int8_from_counts(large.sum(axis=(1, 2)), count, layers=layers, tokens=tokens)


def int8_from_counts(
    large: Int[np.ndarray, "*axes layer d_model"],
    tokens_seen: int | Int[np.ndarray, "*axes"],
    *,
    layers: float = IN_LAYERS,
    tokens: float = IN_TOKENS,
) -> Bool[np.ndarray, "*axes d_model"]:
    """The same rule from large[l, j], the number of a layer's tokens with |x_j| ≥ threshold.

    "In 6 % of the tokens" is over the tokens of all layers together. Counts are all that a pass
    need keep: they add up over sequences.
    """
    in_layers = (large > 0).mean(axis=-2)
    seen = np.maximum(np.asarray(tokens_seen)[..., None], 1)
    in_tokens = large.sum(axis=-2) / (large.shape[-2] * seen)
    return (in_layers >= layers) & (in_tokens >= tokens)


def beyond_sigmas(
    values: Float[np.ndarray, "*axes d_model"], sigmas: float = SIGMAS
) -> Bool[np.ndarray, "*axes d_model"]:
    """|v_j − mean v| > sigmas · σ(v), mean and σ over the dimensions of each row.

    No row of fewer than sigmas² + 2 dimensions has such an entry: one alone is at most
    (d − 1) / √d standard deviations from the mean, 2.85 of them at d = 10.
    """
    centred = values - values.mean(axis=-1, keepdims=True)
    return np.abs(centred) > sigmas * values.std(axis=-1, keepdims=True)


def consistent(
    flags: Bool[np.ndarray, "layer d_model"], layers: float = 0.5
) -> Bool[np.ndarray, " d_model"]:
    """Flagged in at least that share of the layers: "in the same place throughout the model"."""
    return flags.mean(axis=0) >= layers
