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
# # 2. What compression does to sinks
#
# OATS (Zhang and Papyan 2025) writes every matrix as sparse plus low rank, W ≈ S + L. If low rank makes sinks, taking L away should lose them
# and taking S away should not. Both can be tried on one model: a term is switched off, and switched on again.

# %%
# %matplotlib inline
import numpy as np
import torch

from bridge.compress import compressed
from bridge.methods import OATS
from bridge.methods.magnitude import Magnitude
from bridge.methods.wanda import Wanda
from bridge.operators import LowRank, Sparse
from bridge.toggle import without
from experiments.pictures import bars, figure
from experiments.text import read_text
from mech.capture import capture_blocks
from mech.load import load
from mech.probes import sinks
from mech.tokens import encode, windows

torch.set_num_threads(1)
SEQ, SEQUENCES = 128, 3
LAYERS = 6  # of 30, so that this takes seconds; what is in them does not depend on later ones
ATTENTION = "layers.*.self_attn.[qk]_proj"
model, tokenizer, *_ = load("smollm2")
model.model.layers = model.model.layers[:LAYERS]
model.config.num_hidden_layers = LAYERS
given = windows(encode(tokenizer, read_text(None, "calibration").text[:20_000]), SEQ, 2)
ids = windows(encode(tokenizer, read_text(None, "evaluation").text[:20_000]), SEQ, SEQUENCES)


def found():
    """Which (layer, sequence, head, key) are sinks now."""
    alpha = capture_blocks(model, ids, lambda block: sinks.score(block.received))
    return sinks.sinks(np.stack(alpha))


dense = found()
print(
    f"{dense[..., 0].sum() / SEQUENCES:.0f} of {dense.shape[0] * dense.shape[2]} heads a sequence"
)

# %% [markdown]
# ## One term at a time
#
# Recall: the share of the dense model's sinks that are still sinks, of the first token and of later ones (the last 16 left out). Only W_Q and
# W_K of these layers are compressed, to 50%.

# %%
kept, grids = {}, {}


def look(name):
    """Keep the recall of first-token and of later sinks under this name."""
    now = found()
    shares = sinks.agreement(now, dense)
    kept[name] = (shares.first_recall, shares.later_recall)
    grids[name] = now[..., 0].mean(axis=1)


look("dense")
with compressed(model, OATS(compression=0.5), [given], select=ATTENTION):
    look("OATS: S + L")
    with without(model, LowRank):
        look("S alone")
    with without(model, Sparse):
        look("L alone")

# %% [markdown]
# ## Is it low rank, or is it amount?
#
# S alone is not the matrix less a little: the low-rank term holds most of its norm. The **control** is a sparse matrix that was made
# to stand alone, by magnitude and by Wanda, at the same budget.

# %%
for method in (Magnitude(), Wanda()):
    with compressed(model, method, [given], select=ATTENTION):
        look(f"control: {type(method).__name__.lower()}")
look("dense again")
series = {"first token": [a for a, _ in kept.values()], "later": [b for _, b in kept.values()]}
bars(list(kept), series, f"share of the dense model's sinks (n = {SEQUENCES} sequences)",
     f"W_Q, W_K of layers 0 to {LAYERS - 1} at 50%")  # fmt: skip

# %%
for name, (first, later) in kept.items():
    print(f"{name:20} first {first:.2f}  later {later:.2f}")
assert kept["dense again"] == kept["dense"] == (1.0, 1.0)  # nothing of all this stays in the model
assert kept["S alone"][0] < 0.2 < 0.7 < kept["L alone"][0]
assert min(kept[f"control: {name}"][0] for name in ("magnitude", "wanda")) > 0.7

# %% [markdown]
# So S alone has lost the sinks and L alone has them; **but** a matrix as sparse that was made to stand alone keeps them too. The sinks are
# in the large part of the matrix, which OATS gives to L; that they *need* low rank does not follow. The whole test, with intervals and with
# components of equal amounts, is `ctr terms` (`docs/evidence.md`).
#
# Layer by head: where the first token is a sink, S + L on the left, S alone on the right.

# %%
picture, panels = figure(9, 3.6, columns=2)
for axes, name in zip(panels, ("OATS: S + L", "S alone"), strict=True):
    image = axes.imshow(grids[name], cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower")
    axes.set(xlabel="head", ylabel="layer", title=name)
picture.colorbar(image, ax=panels, label="share of sequences")
picture
