"""The section on catch, tag and release on text, with the tag's survival drawn by depth."""

from dataclasses import replace

from experiments.probing.figures.survival import survival
from experiments.probing.release import Released
from experiments.probing.release import section as told
from experiments.report import Picture, Section


def section(released: Released) -> Section:
    """What `release` tells, and its curve where there is one."""
    found = told(released)
    if released.curve is None or not released.heads:
        return found
    best, curve = released.heads[0], released.curve
    caption = (
        f"How far the tokens that head {best.head} of block {best.layer} caught at different sinks "
        "lie apart in the stream, by depth, above the same number of contiguous segments cut at "
        f"random (zero): means and 95% intervals over n = {curve.n} sequences, each depth by "
        "itself. Grey: the block that writes the tag; before it nothing has been written. "
        "Diamond: the same of the head's own output, with the interval of its paired differences."
    )
    drawn = survival(curve.eta2, curve.ari, (best.eta2_above, best.ari_above), best.layer, curve.n)
    return replace(found, pictures=[*found.pictures, Picture("tag-survival", drawn, caption)])
