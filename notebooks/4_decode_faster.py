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
# slows both. Reading a quarter less can save a quarter of the time at most: what is gained beyond that is our kernel against torch's product,
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
given = windows(encode(tokenizer, read_text(None, "calibration").text[:20_000]), 128, 4)
ids = windows(encode(tokenizer, read_text(None, "evaluation").text[:20_000]), 64, 4)

# %% [markdown]
# ## A recipe
#
# Half of the channels of every linear and of the output head. A Setting with `alpha=0.95` adds R-Sparse's low-rank term for what is left out.

# %%
read = calibrate(model, list(given.split(2)), keep=512, head=True)
recipes = {
    share: fit(model, dict.fromkeys([*linears(model), "head"], Setting(sparsity=share)), read)
    for share in (0.25, 0.5)
}
with tempfile.TemporaryDirectory() as folder:  # saved, and read again
    recipes[0.5].save(f"{folder}/half")
    recipes[0.5] = Recipe.load(f"{folder}/half")

# %% [markdown]
# ## Speed, in turns
#
# The same prompt is continued by as many tokens, dense and gated in turn. A ratio is of one turn of each.

# %%
PROMPT, NEW, TURNS = 16, 16, 4


def seconds():
    """One continuation in the compiled loop, and what it wrote."""
    with fast(model) as run:
        begun = time.perf_counter()
        told = model.generate(
            ids[:1, :PROMPT], max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False
        )
        return (time.perf_counter() - begun), told, run.steps


seconds()  # compiled once
ratios, texts = {}, {"dense": seconds()[1]}
for share, recipe in recipes.items():
    ratios[share] = []
    with sparsified(model, recipe):
        seconds()
    for _ in range(TURNS):
        dense, *_ = seconds()
        with sparsified(model, recipe):
            gated, texts[f"{share:.0%} left out"], steps = seconds()
        ratios[share].append(dense / gated)
    assert steps >= NEW - 1  # all steps ran in the compiled loop
for name, told in texts.items():
    print(f"{name:14}", repr(tokenizer.decode(told[0, PROMPT:]))[:90])

# %% [markdown]
# ## What it costs
#
# Mean of -log p over the tokens of held-out text, each decoded by a step of its own. **Control**: gates that leave out nothing.


# %%
def loss():
    """-log p of each sequence's tokens, their mean: (sequence,)."""
    return decoded_losses(model, ids[:, :32], PROMPT).mean(dim=1).numpy()


whole = loss()
nothing = fit(model, dict.fromkeys(linears(model), Setting(sparsity=0.0)), read)
cost = {}
for share, recipe in {0.0: nothing, **recipes}.items():
    with sparsified(model, recipe):
        cost[share] = loss() - whole
print(f"dense {whole.mean():.2f} nats a token, n = {len(ids)} sequences")
for share, more in cost.items():
    print(f"{share:.0%} left out: {more.mean():+.3f} nats, by sequence {np.round(more, 2)}")
assert np.abs(cost[0.0]).max() < 1e-3 < 0.1 < cost[0.5].mean()
assert np.median(ratios[0.5]) > 1

# %%
picture, (left, right) = figure(10, 3.6, columns=2)
for at, (share, found) in enumerate(ratios.items()):
    left.plot(np.full(TURNS, at), found, "o", color="#1f5fa8", alpha=0.7)
left.axhline(1, color="black", linewidth=0.8)
left.set_xticks(range(len(ratios)), [f"{share:.0%} left out" for share in ratios])
left.set(
    ylabel="dense time / gated time", title=f"speed, {TURNS} turns each", xlim=(-0.5, 1.5), ylim=0
)
for at, more in enumerate(cost.values()):
    right.plot(np.full(len(ids), at), more, "o", color="#c46a1b", alpha=0.7)
right.axhline(0, color="black", linewidth=0.8)
right.set_xticks(range(len(cost)), [f"{share:.0%} left out" for share in cost])
right.set(
    ylabel="nats a token more than dense", title=f"cost, {len(ids)} sequences", xlim=(-0.5, 2.5)
)
picture

# %% [markdown]
# Which linear should read how much is worth a search (`ctr search`), and int8 rows with a tenth left out are faster for nothing:
# `docs/decode.md`. Careful timings, with intervals, on a machine without other work: `ctr decode smollm2 --text FILE`.
