"""Tables and pictures of maps of contributions: channels by components."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from experiments.intervals import interval
from experiments.parts.answer import Answer
from experiments.pictures import figure
from experiments.report import Picture, Table


def role(name: str) -> str:
    """q_proj of "layers.3.self_attn.q_proj"."""
    return name.rpartition(".")[2]


def by_role(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mean over blocks of every role, in order of their first."""
    roles = dict.fromkeys(map(role, found))
    return {r: np.mean([v for name, v in found.items() if role(name) == r], axis=0) for r in roles}


def tables(
    maps: Mapping[str, Float[np.ndarray, "sequences cells cells"]],
    lost: Mapping[str, Float[np.ndarray, "sequences five"]],
) -> list[Table]:
    """By role: what the leading quarter and half of both hold, and what one budget leaves out."""
    shares, left, rows = by_role(maps), by_role(lost), []
    for name, found in shares.items():
        cells = found.shape[-1]
        held = [found[:, : cells // of, : cells // of].sum(axis=(1, 2)) for of in (4, 2)]
        rows.append((name, *map(str, map(interval, [*held, *left[name].T]))))
    columns = (
        "linear", "corner of a quarter", "corner of half", "Σ c² lost, channels",
        "Σ c² lost, with components", "‖y‖² lost, channels", "‖y‖² lost, with components",
        "‖y‖² lost, with random directions",
    )  # fmt: skip
    caption = (
        "Means over the blocks read; 95% intervals over sequences. Corners: share of all "
        "contributions that the leading channels and components hold together. Lost: at one "
        "budget, in channels alone or with components beside."
    )
    return [Table(columns, rows, caption)]


def picture(result: Answer) -> Picture:
    """The mean map of every role beside the map of random numbers, logarithmic colours."""
    drawn = by_role({n: np.array(m) for n, m in result.data["maps"].items()})
    drawn["random numbers"] = np.array(result.data["chance"])
    rows = -(-len(drawn) // 4)
    canvas, axes = figure(11, 2.7 * rows, rows=rows, columns=4)
    even = 1 / drawn["random numbers"].size
    scale = {"cmap": "PuOr_r", "norm": Normalize(-1.5, 1.5)}
    for axis, (name, shares) in zip(axes, drawn.items(), strict=False):
        logs = np.log10(np.maximum(shares / even, 1e-3))
        axis.imshow(logs, extent=(0, 1, 1, 0), **scale)
        axis.set(title=name, xlabel="components, by σ", ylabel="channels, by |x|")
    for axis in axes[len(drawn) :]:
        axis.set_axis_off()
    canvas.colorbar(ScalarMappable(**scale), ax=axes, shrink=0.7, label="log₁₀ share / even share")
    return Picture(
        "contributions",
        canvas,
        "Share of |x_j| σ_i |v_ji| by rank of channel and component, mean over blocks, tokens and "
        "sequences. The last map is of Gaussian inputs and weights of the same shapes, sorted in "
        "the same way.",
    )
