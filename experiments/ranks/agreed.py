"""Ranks that share a question: do all of them ask it of the same model and text?"""

import hashlib
import json
import sys
from typing import TYPE_CHECKING, Any

from experiments import provenance, serial
from experiments.sources import sources
from mech.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from bridge.ranks import TorchRanks
    from experiments.measure import Material
    from mech.load import Loaded


def check(ranks: "TorchRanks", config: Any, loaded: "Loaded", material: "Material") -> None:
    """Compare on every rank what it was asked, what it read, and with which versions.

    Sums over ranks of other models or texts would be of none, and no rank could tell. Places of
    the model and the text may differ: their contents are compared.

    Raises:
        BadInput: on every rank, where one of them has anything else than rank 0.
    """
    own = {
        "command": _asked(config),
        "model": loaded.sha256,
        "model's config.json": _hash(loaded.model.config.to_json_string().encode()),
        "text": _hash(*(_bytes(tokens) for tokens in (material.calibration, material.evaluation,
                                                      material.sequences))),
        "code": sources(sys.modules[type(config).__module__]),
        "version of a library": _versions(),
    }  # fmt: skip
    every = [said for said, _ in ranks.each((own, {}))]
    for rank, said in enumerate(every):
        for name, value in every[0].items():
            if said[name] != value:
                raise BadInput(f"rank {rank} has another {name} than rank 0: give all the same")


def _versions() -> dict[str, str]:
    """Of libraries; this one is told by its code: helpers start from its folder, which may be
    called by an older version, or by none."""
    apart = ("platform", "processor", "commit", "catch-tag-release")
    return {k: v for k, v in provenance.versions().items() if k not in apart}


def _asked(config: Any) -> dict[str, Any]:
    plain = serial.plain(config)
    places = {"model", "text"}
    return plain | {"reading": {k: v for k, v in plain["reading"].items() if k not in places}}


def _bytes(tokens: "Tensor") -> bytes:
    return json.dumps(tokens.tolist()).encode()


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
