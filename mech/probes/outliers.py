"""Outlier features: coordinates of the stream that are large at nearly all tokens.

Unlike a massive activation, which is a scalar at one token, an outlier feature is a dimension.
Two rules: one relative to each token, which needs no scale, and the absolute one of Dettmers et
al. 2022, "LLM.int8()", arXiv:2208.07339, section 4.1.
"""

import numpy as np
from jaxtyping import Bool, Float

FACTOR = 6.0
SHARE = 0.95


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
    threshold: float = 6.0,
    layers: float = 0.25,
    tokens: float = 0.06,
) -> Bool[np.ndarray, " d_model"]:
    """|x_j| ≥ threshold somewhere in ≥ `layers` of the layers and in ≥ `tokens` of all tokens.

    The paper reads the inputs of the attention projections and of the first feed-forward
    matrix, which are normed; on a residual stream the absolute threshold means more.
    """
    large = np.abs(states) >= threshold
    in_layers = large.any(axis=(1, 2)).mean(axis=0)
    in_tokens = large.mean(axis=(0, 1, 2))
    return (in_layers >= layers) & (in_tokens >= tokens)
