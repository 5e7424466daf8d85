"""The result of an experiment on a paper: findings, tables, and the values of every unit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.findings import Finding
from experiments.parts import page
from experiments.provenance import Inputs
from experiments.report import Picture, Section, Table


@dataclass(frozen=True)
class Answer:
    """What a run found.

    units: by name, one value a window, sequence, item or seed, in the order of the inputs: two
    runs on the same inputs are compared in pairs (`ctr compare`). data: whatever else pictures
    need, in JSON's own types and arrays.
    """

    config: Any
    inputs: Inputs
    findings: Sequence[Finding]
    tables: Sequence[Table]
    units: Mapping[str, Float[np.ndarray, " unit"]] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


def sections(answer: Answer, title: str, pictures: Sequence[Picture] = ()) -> list[Section]:
    """Claims and verdicts first, then the tables and pictures."""
    return [page.found(answer.findings), Section(title, [], answer.tables, pictures)]
