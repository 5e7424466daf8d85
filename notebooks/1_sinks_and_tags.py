# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. See sinks and tags in a model
#
# A language model rests much of its attention on a few tokens that mean little: *attention sinks*. A head that rests on a sink writes
# the sink's value, one vector, into every token that it caught: a *tag*. Here both are looked for in SmolLM2-135M-Instruct, on text that
# every installation has (documentation strings). Everything below works on any causal language model of Hugging Face: change the name.

# %%
# %matplotlib inline
import numpy as np
import torch
from IPython.display import HTML

from experiments.pictures import attention_map, bars, coloured_tokens, depth_profile, sink_grid
from experiments.text import read_text
from mech.capture import capture, capture_blocks
from mech.load import load
from mech.probes import agreement, catch, massive, segments, sinks
from mech.tokens import encode, windows

torch.set_num_threads(1)
SEQ, SEQUENCES = 128, 3
model, tokenizer, *_ = load("smollm2")
encoded = encode(tokenizer, read_text(None, "evaluation").text[:20_000])
ids = windows(encoded, SEQ, SEQUENCES)
print(encoded.decision, tuple(ids.shape))

# %% [markdown]
# ## Where the sinks are
#
# Equation 1 of Gu et al. (2025): a key k is a sink of a head where the mean attention of all queries that see it,
# α_k = Σ_{i ≥ k} A[i, k] / (T − k + 1), is above 0.1. The last 16 keys are left out of the later ones: few queries see them, and any head
# that looks at itself would have "sinks" there.

# %%
seen = capture_blocks(
    model,
    ids,
    lambda block: (
        sinks.score(block.received),
        massive.peaks(np.stack([block.resid_pre, block.resid_post])),
    ),
)
alpha = np.stack([each for each, _ in seen])  # (layer, sequence, head, key)
count = sinks.count_sinks(alpha)
sink_grid(count.first, count.later)

# %% [markdown]
# **Control**: heads without any preference, and heads that look at their last five tokens. Neither has a sink.

# %%
causal = np.tril(np.ones((SEQ, SEQ), np.float32))
local = causal - np.tril(causal, -5)
heads = np.stack([causal, local])[None, None]
indifferent = sinks.score((heads / heads.sum(-1, keepdims=True)).sum(-2))
none = sinks.count_sinks(indifferent)
print(f"model: {count.first.sum():.1f} of {count.first.size} heads rest on the first token,")
print(f"       {count.later.sum():.1f} later sinks a sequence (n = {SEQUENCES} sequences of {SEQ})")
print(f"uniform and local heads: {none.first.sum():.0f} and {none.later.sum():.0f}")
assert count.first.sum() > 0.5 * count.first.size > none.first.sum() == none.later.sum() == 0

# %% [markdown]
# ## What makes a token a sink
#
# A few coordinates of a few tokens are thousands of times larger than the rest: massive activations. The first token has them from
# block 11 on.

# %%
peaks = [peak for _, peak in seen]
print("after block 15:", f"token {peaks[15].token[1]}, coordinate {peaks[15].dim[1]}")
depth_profile(np.array([peaks[0].ratio[0], *(peak.ratio[1] for peak in peaks)]))

# %% [markdown]
# ## Who is caught
#
# Of one head, what every token looks at. Orange: its sinks. Head 5 of layer 4 has several; a token is *caught* by the one it rests on most.

# %%
LAYER, HEAD = 4, 5
trace = capture(model, ids[:1])
pattern, z = trace.pattern[LAYER, 0, HEAD], trace.z[LAYER, 0, HEAD]
at = np.flatnonzero(sinks.sinks(alpha[LAYER, 0, HEAD]) & (np.arange(SEQ) < SEQ - sinks.SUPPORT))
names = [tokenizer.decode(token) for token in ids[0]]
SHOWN = 48
attention_map(names[:SHOWN], pattern[:SHOWN, :SHOWN], at[at < SHOWN], f"layer {LAYER}, head {HEAD}")

# %% [markdown]
# ## What tag they carry
#
# The first three principal components of what the head writes, as colours: tokens that one sink caught have one colour. Framed: the sinks.

# %%
STYLE = "<style>.sink{outline:2px solid #c22} .tokens{line-height:1.9}</style>"
colours = segments.segments(z).colour
HTML(STYLE + coloured_tokens(f"head {LAYER}.{HEAD} writes", names, colours, at))

# %% [markdown]
# Colours persuade too easily: neighbours in a text are alike anyway. So the share of the variance of what the head writes that "which sink
# caught it" explains (η²) stands beside random cuts of the same text into as many contiguous segments.

# %%
told, cut = [], []
for index in range(SEQUENCES):
    each = trace if index == 0 else capture(model, ids[index : index + 1])
    pattern, z = each.pattern[LAYER, 0, HEAD], each.z[LAYER, 0, HEAD]
    found = sinks.sinks(alpha[LAYER, index, HEAD]) & (np.arange(SEQ) < SEQ - sinks.SUPPORT)
    labels = catch.caught_by(pattern, np.flatnonzero(found), least=0.2)
    kept = agreement.usable(labels)
    if kept is not None:
        one = agreement.grouping(z[kept], labels[kept])
        told.append(one.eta2)
        cut.append(one.eta2_contiguous)
print(f"η² by sequence (n = {len(told)} with two groups or more)")
print("by sink:        ", np.round(told, 2))
print("random segments:", np.round(cut, 2))
assert np.mean(told) > np.mean(cut)
bars([f"sequence {i}" for i in range(len(told))],
     {"by the sink that caught it": told, "by random segments": cut},
     "share of the variance explained (η²)", f"head {LAYER}.{HEAD}: what it writes")  # fmt: skip

# %% [markdown]
# Whether a tag *does* anything is another question, and the answer is not what the picture suggests: see `docs/interventions.md`, and
# `ctr experiment tags` for the interventions with their controls. The same page for your own model: `ctr probe MODEL --text FILE`.
