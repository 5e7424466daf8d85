"""One forward pass under edits: losses, later sink mass and clustering, sequence by sequence."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from ctr_kernels.sink_mass import SinkMass
from mech import standing
from mech.blocks import decoder_blocks, unwrap
from mech.causal import intervene
from mech.edits import Edit
from mech.probes import agreement, catch
from mech.probes.clusters import adjusted_rand, kmeans
from mech.reach import Sinks

AT_ONCE = 5  # sequences in one pass
DRAWS = 30  # random cuts behind a null

# The edits of some of the sequences.
Edits = Callable[[slice], Sequence[Edit]]


class Watched(NamedTuple):
    """Where to look: every sequence's sinks, one head, and the labels that its sinks give tokens.

    `after` is the layer behind which the head's groups are looked for in the stream; labels are
    -1 where a token is a sink or of no usable group.
    """

    sinks: Sinks
    layer: int
    head: int
    after: int
    labels: Sequence[Int[np.ndarray, " seq"] | None]


class Outcome(NamedTuple):
    """nll: nats a token. mass: share of attention that goes to the sinks, mean over heads.

    ari: of k-means on the watched head's outputs with the untouched model's labels. release: η²
    of these labels in the stream after `after`, above contiguous segments. NaN without labels.
    """

    nll: Float[np.ndarray, " sequence"]
    mass: Float[np.ndarray, "layer sequence"]
    ari: Float[np.ndarray, " sequence"]
    release: Float[np.ndarray, " sequence"]


def outcome(
    model: PreTrainedModel, ids: Int[Tensor, "sequence seq"], edits: Edits, watched: Watched
) -> Outcome:
    """Every measure of the model under these edits."""
    parts = [_part(model, ids, edits, watched, rows) for rows in _groups(len(ids))]
    nll, mass, ari, release = zip(*parts, strict=True)
    return Outcome(
        np.concatenate(nll),
        np.concatenate(mass, axis=1),
        np.concatenate(ari),
        np.concatenate(release),
    )


def losses(
    model: PreTrainedModel, ids: Int[Tensor, "sequence seq"], edits: Edits
) -> Float[np.ndarray, "sequence scored"]:
    """Nats of every token but the first."""
    found = []
    for rows in _groups(len(ids)):
        with intervene(model, *edits(rows)) as changed:
            found.append(_nll(changed, ids[rows]))
    return np.concatenate(found)


def _groups(count: int) -> list[slice]:
    return [slice(at, min(at + AT_ONCE, count)) for at in range(0, count, AT_ONCE)]


def _part(
    model: PreTrainedModel,
    ids: Int[Tensor, "sequence seq"],
    edits: Edits,
    watched: Watched,
    rows: slice,
) -> Outcome:
    masses: list[np.ndarray] = []
    kept: dict[str, np.ndarray] = {}
    chosen = watched.sinks[rows]

    def reader(call: standing.Call, found: SinkMass, z: Tensor) -> None:
        received = found.received.mean(dim=1)
        on = [float(received[row, list(sinks)].sum()) for row, sinks in enumerate(chosen)]
        masses.append(np.array(on) / ids.shape[1])
        if call.layer == watched.layer:
            kept["z"] = z[:, watched.head].float().numpy()

    def stream(_: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        kept["stream"] = unwrap(output).detach().float().numpy()

    handle = decoder_blocks(model)[watched.after].register_forward_hook(stream)
    try:
        with intervene(model, *edits(rows)) as changed, standing.reading(changed, reader):
            nll = _nll(changed, ids[rows]).mean(axis=1)
    finally:
        handle.remove()
    grouped = [
        _grouped(kept["z"][row], kept["stream"][row], labels)
        for row, labels in enumerate(watched.labels[rows])
    ]
    ari, release = np.array(grouped).T
    return Outcome(nll, np.stack(masses), ari, release)


def _nll(model: PreTrainedModel, ids: Int[Tensor, "row seq"]) -> Float[np.ndarray, "row scored"]:
    with torch.no_grad():
        logits = model(ids.to(model.device), use_cache=False).logits[:, :-1]
    flat = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), ids[:, 1:].flatten().to(logits.device), reduction="none"
    )
    return flat.reshape(len(ids), -1).double().cpu().numpy()


def _grouped(
    z: Float[np.ndarray, "seq d_head"],
    stream: Float[np.ndarray, "seq d_model"],
    labels: Int[np.ndarray, " seq"] | None,
) -> tuple[float, float]:
    if labels is None:
        return float("nan"), float("nan")
    kept = agreement.usable(labels)
    assert kept is not None  # labels are given only where there are two groups
    labels = labels[kept]
    groups = len(np.unique(labels))
    null = catch.contiguous_null(stream[kept], groups, draws=DRAWS).mean()
    release = catch.variance_explained(stream[kept], labels) - float(null)
    return adjusted_rand(kmeans(z[kept], groups), labels), release
