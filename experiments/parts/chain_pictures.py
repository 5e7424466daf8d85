"""The chain as boxes and arrows, and what mediators carry, from findings alone."""

from collections.abc import Sequence

from experiments.findings import Finding
from experiments.report import Picture


def pictures(findings: Sequence[Finding]) -> list[Picture]:
    return []
