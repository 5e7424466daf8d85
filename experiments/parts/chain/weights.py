"""What stands in W_Q and W_K while the low-rank link of the chain is broken, and its controls."""

from collections.abc import Collection

from experiments import naming
from experiments.parts.chain.measure import Operators
from experiments.parts.work import Work
from experiments.progress import Progress
from experiments.settings import Budget

_NAMES = (naming.SPARSE, naming.PLAIN, naming.TOP, naming.NORM)


def operators(
    work: Work, budget: Budget, names: Collection[str], progress: Progress, seed: int = 0
) -> Operators:
    """OATS' sparse term alone; as many nonzeros; W without the top component of W D; without a
    random one of equal norm (`experiments.variants`): of every W_Q and W_K, by name.

    Nothing is calibrated where no name is asked for. Raises BadInput as `roster.oats` does.
    """
    from experiments import measure, roster, variants
    from experiments.where import Where

    if not names:
        return {}
    oats = roster.oats(budget)
    material = measure.Material(
        work.calibration, work.windows, work.sequences, work.bos_id, work.inputs
    )
    matrices = variants.calibrated(work.loaded.model, oats, Where(), material, progress)
    every = variants.TERMS | variants.DIRECTIONS
    return {
        name: variants.operators(matrices, every[name], seed)[0] for name in _NAMES if name in names
    }
