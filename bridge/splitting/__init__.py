"""A ≈ L + S, rank(L) ≤ r, k entries a row in S: two ways to run one alternation.

`FullSVD` is the definition (Zhang and Papyan 2024, arXiv:2409.13652, algorithm 1). `WarmSubspace`
answers to it: measured, it reaches the error of the definition's iterations, from about eight of
them on, in a fraction of the time.
"""

from bridge.splitting.split import FullSVD, Split
from bridge.splitting.warm import WarmSubspace

__all__ = ["FullSVD", "Split", "Truncation", "WarmSubspace"]

Truncation = FullSVD | WarmSubspace
