"""How far maps of contributions lie apart: on two samples, on two domains, in two blocks."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from bridge.sites import block_of
from experiments.parts.r_sparse.contribution import contribution_map, of_linears
from experiments.parts.r_sparse.linears_read import measured
from experiments.progress import Progress

if TYPE_CHECKING:
    from experiments.parts.r_sparse.domains import Domain
    from experiments.parts.work import Work

Maps = Mapping[str, Float[np.ndarray, "sequences cells cells"]]


def mapped(
    work: "Work",
    texts: "Sequence[Domain]",
    linears: Mapping[str, nn.Linear],
    cells: int,
    progress: Progress,
) -> dict[str, Maps]:
    """The map of every linear on every sequence of every text, by the text's name."""
    parts, maps = of_linears(linears, progress), {}

    def measure(name: str, x: Float[Tensor, "tokens d_in"]) -> Float[np.ndarray, "cells cells"]:
        return contribution_map(x, parts[name], cells)

    for text in texts:
        progress.say(f"{text.name}: {text.sha256[:12]}")
        found = measured(work, text.sequences.split(1), list(linears), measure, progress)
        maps[text.name] = {name: np.stack(values) for name, values in found.items()}
    return maps


def apart(
    a: Float[np.ndarray, "*some cells cells"], b: Float[np.ndarray, "*some cells cells"]
) -> Float[np.ndarray, "*some"]:
    """½ Σ |a - b| of maps that sum to 1: 0 for equal ones, 1 for none in common."""
    return 0.5 * np.abs(a - b).sum(axis=(-1, -2))


def distances(maps: Mapping[str, Maps]) -> dict[str, Float[np.ndarray, " units"]]:
    """Mean distance over linears, `maps` by domain, then by linear.

    "samples, D": the same linear on sequences 1 and 2, 3 and 4, ... of D; "domain, D": on D and
    on the first domain, sequence by sequence; "blocks, D": one role in two blocks that were read
    (the last beside the first), on one sequence. With "less blocks" beside: of the same sequences,
    of the first domain where there are two.
    """
    found, (first, *_) = {}, maps
    blocks = {domain: _blocks(here) for domain, here in maps.items()}
    for domain, here in maps.items():
        even = len(blocks[domain]) // 2 * 2
        pairs = _mean(apart(m[:even:2], m[1:even:2]) for m in here.values())
        halves = blocks[domain][:even].reshape(-1, 2).mean(axis=1)
        found[f"samples, {domain}"] = pairs
        found[f"blocks, {domain}"] = blocks[domain]
        found[f"samples less blocks, {domain}"] = pairs - halves
        if domain != first:
            between = _mean(apart(here[n], maps[first][n]) for n in here)
            found[f"domain, {domain}"] = between
            found[f"domain less blocks, {domain}"] = between - blocks[first]
    return found


def _blocks(here: Maps) -> Float[np.ndarray, " sequences"]:
    after = following(list(here))
    return _mean(apart(here[n], here[after[n]]) for n in here)


def following(names: list[str]) -> dict[str, str]:
    """By linear, the one of its role in the next block among `names`, the first after the last."""
    found = {}
    for name in names:
        path = name.split(".", 2)[2]
        same = sorted((n for n in names if n.split(".", 2)[2] == path), key=block_of)
        found[name] = same[(same.index(name) + 1) % len(same)]
    return found


def _mean(values) -> np.ndarray:
    return np.mean(list(values), axis=0)
