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
# # 4. Decode faster with a recipe
#
# When a model writes token by token it reads all of its weights for every token. R-Sparse and TEAL read, for each token, only the input
# channels that matter to it. A *recipe* says how many for every linear; it is fitted on text and can be saved.
#
# The speed here counts against the model in the same compiled loop with torch's products, in turns, because other work on the machine
# slows both. Reading half can save half of the time at most: what is gained beyond that is our kernel against torch's product,
# and not sparsity. `docs/decode.md` counts against the fastest dense form. It is paid for in nats, which are measured beside it.

# %%
# %matplotlib inline
import tempfile
import time

import numpy as np
import torch

from bridge.decode.fast import fast
from bridge.decode.forced import decoded_losses
from bridge.decode.inputs import calibrate
from bridge.decode.plan import Setting
from bridge.decode.recipe import Recipe, fit
from bridge.decode.sparsified import sparsified
from bridge.sites import linears
from experiments.pictures import figure
from experiments.text import read_text
from mech.load import load
from mech.tokens import encode, windows

torch.set_num_threads(1)
model, tokenizer, *_ = load("smollm2")
given = windows(encode(tokenizer, read_text(None, "calibration").text[:20_000]), 128, 2)
ids = windows(encode(tokenizer, read_text(None, "evaluation").text[:20_000]), 24, 4)

# %% [markdown]
# ## A recipe
#
# Half of the channels of every linear and of the output head. A Setting with `alpha=0.95` adds R-Sparse's low-rank term for what is left out.
# **Control**: gates that leave out nothing. What those gain is our kernel against torch's product, and what they cost is rounding.

# %%
read = calibrate(model, [given], keep=256, head=True)
recipes = {
    share: fit(model, dict.fromkeys([*linears(model), "head"], Setting(sparsity=share)), read)
    for share in (0.0, 0.5)
}
with tempfile.TemporaryDirectory() as folder:  # saved, and read again
    recipes[0.5].save(f"{folder}/half")
    recipes[0.5] = Recipe.load(f"{folder}/half")

# %% [markdown]
# ## Speed and cost
#
# Speed: the same prompt is continued by as many tokens, dense, gated, gated, dense and so on; a ratio is of one dense and the gated one next to it.
# Cost: mean of -log p over the tokens of held-out text, each decoded by a step of its own.

# %%
PROMPT, NEW = 12, 8


def seconds():
    """One continuation in the compiled loop, and what it wrote."""
    with fast(model) as run:
        begun = time.perf_counter()
        told = model.generate(
            ids[:1, :PROMPT], max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False
        )
        took = time.perf_counter() - begun
        assert run.steps >= NEW - 1  # all steps ran in the compiled loop
        return took, told


def loss():
    """-log p of each sequence's tokens, their mean: (sequence,)."""
    return decoded_losses(model, ids, PROMPT).mean(dim=1).numpy()


whole = loss()
ratios, cost, texts = {}, {}, {"dense": seconds()[1]}  # compiled once
last, _ = seconds()
for share, recipe in recipes.items():
    first = last
    with sparsified(model, recipe):
        (one, texts[f"{share:.0%} left out"]), (two, _) = seconds(), seconds()
        cost[share] = loss() - whole
    last, _ = seconds()
    ratios[share] = [first / one, last / two]
for name, told in texts.items():
    print(f"{name:14}", repr(tokenizer.decode(told[0, PROMPT:])))
print(f"dense {whole.mean():.2f} nats a token, n = {len(ids)} sequences")
for share, more in cost.items():
    print(
        f"{share:.0%} left out: {more.mean():+.3f} nats, by sequence {np.round(more, 2)}; "
        f"dense time / gated time {np.round(ratios[share], 2)}"
    )
assert np.abs(cost[0.0]).max() < 1e-3 < 0.1 < cost[0.5].mean()

# %%
picture, panels = figure(10, 3.6, columns=2)
ticks = range(len(recipes)), [f"{share:.0%} left out" for share in recipes]
for axes, found, colour, level in zip(
    panels, (ratios, cost), ("#1f5fa8", "#c46a1b"), (1, 0), strict=True
):
    for at, values in enumerate(found.values()):
        axes.plot(np.full(len(values), at), values, "o", color=colour, alpha=0.7)
    axes.axhline(level, color="black", linewidth=0.8)
    axes.set_xticks(*ticks)
    axes.set_xlim(-0.5, len(recipes) - 0.5)
left, right = panels
left.set(ylabel="dense time / gated time", title="speed, 2 pairs each", ylim=0)
right.set(ylabel="nats a token more than dense", title=f"cost, {len(ids)} sequences")
picture

# %% [markdown]
# Which linear should read how much is worth a search (`ctr search`), and int8 rows with a tenth left out are faster for nothing:
# `docs/decode.md`. Careful timings, with intervals, on a machine without other work: `ctr decode smollm2 --text FILE`.
