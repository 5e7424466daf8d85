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

# %% [markdown]
# # 3. The theorem
#
# A transformer of two layers that has to average the numbers after a separator can do it by catching, tagging and releasing (Zhang, Khan and
# Papyan 2025, section 4). Its weights are written down, not trained; here it runs, and the probes of notebook 1 read it, unchanged.

# %%
# %matplotlib inline
import numpy as np

from experiments.pictures import attention_map, bound_against_error
from mech.probes import sinks
from toy.bounds import error_bound
from toy.transformer import forward, theorem_weights

T, SEP, X = 70, 23, 1.0
generator = np.random.default_rng(0)
x = generator.uniform(-X, X, (100, T))
mean = x[:, SEP:].mean(axis=1)
output, trace = forward(theorem_weights(40.0), x, SEP)
print(
    f"worst |output - mean| of {len(x):,} inputs at s_tag = 40: {np.abs(output - mean).max():.1e}"
)

# %% [markdown]
# ## Catch, tag, release
#
# Layer 1: every token after [SEP] rests on it (left, a sink of equation 1), and so gets its value, the tag. Layer 2: the last token reads the
# tagged tokens and no others, evenly: that is their mean.

# %%
SMALL = 24
few, small = forward(theorem_weights(12.0), x[:1, :SMALL], 9)
names = [f"{value:+.1f}" for value in x[0, :SMALL]]
names[8] = "SEP"
alpha = sinks.score(trace.pattern.sum(-2))
count = sinks.sinks(alpha[0, :, 0])[:, sinks.guarded(T)]
assert (np.flatnonzero(count.any(axis=0)) + 1 == [SEP - 1]).all()  # [SEP] and no other token
attention_map(names, small.pattern[0, 0, 0], np.array([8]), "layer 1: who is caught")

# %%
attention_map(names, small.pattern[1, 0, 0], np.array([], dtype=int), "layer 2: who is read")

# %% [markdown]
# ## The bound
#
# Theorem B bounds the error of every input with |x_i| ≤ X by a function of the tag's size alone. Measured: the worst of 100 random inputs and
# of 100 inputs at the corners, ±X.
#
# **Control**: the same transformer whose first layer is not allowed its low-rank value matrix, W_V1 = 0. Without a tag there is nothing to read,
# and no size of s_tag helps.

# %%
corners = np.sign(generator.standard_normal((100, T))) * X
inputs = np.concatenate([x, corners])
target = inputs[:, SEP:].mean(axis=1)
scales = np.arange(4.0, 41.0, 4.0)


def worst(s_tag, tagged=True):
    """max over the inputs of |output - mean|."""
    weights = theorem_weights(s_tag)
    if not tagged:
        weights = weights._replace(W_V1=np.zeros((2, 2)))
    return np.abs(forward(weights, inputs, SEP)[0] - target).max()


bound = np.array([error_bound(T, SEP, X, s_tag=s) for s in scales])
error = np.array([worst(s) for s in scales])
without = np.array([worst(s, tagged=False) for s in scales])
assert (error <= bound * (1 + 1e-9)).all()
assert (without > 0.1).all()
bound_against_error(
    scales,
    {"Theorem B": bound, f"worst of {len(inputs):,} inputs": error, "control: no tag": without},
    f"T = {T}, [SEP] at {SEP}, |x| ≤ {X:g}",
)

# %% [markdown]
# How large must the tag be for an error below 0.001, and how does that grow with the sequence? Slowly, as the logarithm of T.

# %%
fine = np.arange(2.0, 60.0, 0.1)
for length in (10, 100, 1_000, 10_000):
    enough = next(s for s in fine if error_bound(length, 5, X, s_tag=s) < 1e-3)
    print(f"T = {length:6,}: s_tag = {enough:.1f}")

# %% [markdown]
# Proofs, what is necessary and what is not, and 46 claims that any seed may refute: `docs/theory.md`, `docs/beyond.md` and `ctr toy verify`.
# Training finds this mechanism from a recipe made for it, and hardly from an ordinary initialisation: `ctr toy train`.
