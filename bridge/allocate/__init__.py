"""Non-uniform budgets: which linear may keep how much, with totals that are exact.

Three ways to say who gets more: `owl` (blocks with outliers), `curves` (where one more parameter
lowers a measured error most), `sink_aware` (blocks in which sinks are made). Each gives whole
numbers that sum to the total asked for; `bridge.equal.spread` turns them into methods.
"""

from bridge.allocate.apportion import apportion, uniform
from bridge.allocate.curves import Curve, curves, greedy
from bridge.allocate.outliers import outlier_shares, owl
from bridge.allocate.sinks import sink_aware, sink_scores

__all__ = [
    "Curve",
    "apportion",
    "curves",
    "greedy",
    "outlier_shares",
    "owl",
    "sink_aware",
    "sink_scores",
    "uniform",
]
