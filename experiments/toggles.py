"""Where does which term carry the sinks: layer by layer, projection by projection, head by head?

`terms` swaps all the matrices that it selects at once. Here one group of them at a time is taken
apart while everything else is dense, so that what is lost is that group's.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from experiments import effects, naming
from experiments.intervals import Interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.recalls import Recalls, clear, shown
from experiments.report import Section, Table
from experiments.settings import BadOption, Budget, Reading, Sizes, some
from experiments.where import Where

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from torch import nn

    from experiments.variants import Matrix

Switch = Literal["sparse", "low", "both", "neither"]
LEFT: dict[str, str] = {
    "sparse": naming.SPARSE,
    "low": naming.LOW,
    "both": naming.BOTH,
    "neither": naming.NEITHER,
}


@dataclass(frozen=True)
class Config:
    """Take OATS' terms apart in one group of matrices at a time; the rest stays dense."""

    reading: Reading = field(default_factory=Reading)
    budget: Budget = field(default_factory=Budget)
    where: Where = field(default_factory=Where)
    by: Literal["layer", "projection", "head"] = "projection"
    """What a group is. head: a key head with the query heads that share it, in all layers."""
    left: tuple[Switch, ...] = ("sparse", "low")
    """Which terms are left on in the group."""
    sizes: Sizes = field(default_factory=lambda: Sizes(12, 8, 256, 12, 128))


class Row(NamedTuple):
    """One group with some of its terms. nll: nats a token more than the dense model."""

    group: str
    left: str
    removed: float
    nll: Interval
    kept: Recalls


class Difference(NamedTuple):
    """Recall with the low-rank term less recall with the sparse term, paired."""

    group: str
    first: Interval | None
    later: Interval | None


@dataclass(frozen=True)
class Result:
    """Every group and every switch, in order."""

    config: Config
    inputs: Inputs
    rows: list[Row]
    differences: list[Difference]


def run(config: Config, progress: Progress) -> Result:
    """Calibrate once, then one group and one switch at a time.

    Raises:
        BadOption: heads are both chosen and swept over.
    """
    from bridge.toggle import swap
    from experiments import measure, recalls, roster, variants
    from experiments.intervals import interval
    from mech.probes import sinks

    oats = roster.oats(config.budget)
    some("left", config.left)
    if config.by == "head" and config.where.heads:
        raise BadOption("--heads and --by head: the heads are gone through one by one already")
    loaded = measure.loaded_model(config.reading, progress)
    config.where.names(loaded.model)  # refused before the work
    material = measure.material(loaded, config.reading, config.sizes, progress)
    matrices = variants.calibrated(loaded.model, oats, config.where, material, progress)
    dense = measure.measure(loaded.model, material, progress, naming.DENSE)
    reference = sinks.sinks(dense.scores, measure.EPSILON)
    rows, differences = [], []
    for group, inside in groups(config, matrices, loaded.model).items():
        counts = {}
        for switch in config.left:
            made, gone = variants.operators(inside, variants.TERMS[LEFT[switch]], 0)
            with swap(loaded.model, made):
                after = measure.measure(loaded.model, material, progress, f"{group}: {switch}")
            counts[switch] = recalls.ratios(sinks.sinks(after.scores, measure.EPSILON), reference)
            kept = recalls.recalls(counts[switch])
            rows.append(Row(group, switch, gone, interval(after.nll - dense.nll), kept))
        if {"sparse", "low"} <= set(counts):
            sparse, low = counts["sparse"], counts["low"]
            first = recalls.difference(sparse.first_recall, low.first_recall)
            later = recalls.difference(sparse.later_recall, low.later_recall)
            differences.append(Difference(group, first, later))
    return Result(config, material.inputs, rows, differences)


def groups(
    config: Config, matrices: "dict[str, Matrix]", model: "nn.Module"
) -> "dict[str, dict[str, Matrix]]":
    """Group -> linear's name -> matrix; a head's group has every matrix, masked."""
    from bridge.heads import PROJECTIONS
    from bridge.sites import block_of

    if config.by == "head":
        return _by_head(matrices, model)
    roles = {name: role for role, names in PROJECTIONS.items() for name in names}
    found: dict[str, dict[str, Matrix]] = {}
    for name, matrix in matrices.items():
        last = name.rsplit(".", 1)[-1]
        group = f"layer {block_of(name)}" if config.by == "layer" else roles.get(last, last)
        found.setdefault(group, {})[name] = matrix
    return found


def _by_head(matrices: "dict[str, Matrix]", model: "nn.Module") -> "dict[str, dict[str, Matrix]]":
    from bridge.heads import PROJECTIONS, of_heads

    config: Any = model.config
    text = config.get_text_config(decoder=True)
    queries = text.num_attention_heads
    keys = getattr(text, "num_key_value_heads", None) or queries
    each = queries // keys
    shared = {*PROJECTIONS["k"], *PROJECTIONS["v"]}
    found = {}
    for head in range(keys):
        mine = range(head * each, (head + 1) * each)
        found[f"key head {head}"] = {
            name: matrix._replace(
                inside=of_heads(
                    model,
                    name,
                    (matrix.weight.shape[0], matrix.weight.shape[1]),
                    [head] if name.rsplit(".", 1)[-1] in shared else mine,
                ).to(matrix.weight.device)
            )
            for name, matrix in matrices.items()
        }
    return found


def sections(result: Result) -> list[Section]:
    """One row a group and switch, and how many groups the low-rank term carries."""
    config = result.config
    title = f"Which term carries the sinks, {config.by} by {config.by}"
    return [Section(title, _text(result), [_table(result)])]


def _text(result: Result) -> list[str]:
    config = result.config
    told = [d for d in result.differences if d.first is not None]
    said = [
        f"OATS' terms in {config.where} at {effects.percent(config.budget.sparsity)}, one "
        f"{config.by} at a time; everything else is dense."
    ]
    if told:
        more = [d.group for d in told if clear(d.first) > 0]
        less = [d.group for d in told if clear(d.first) < 0]
        said.append(
            f"In {len(more)} of {len(told)} groups the low-rank term alone keeps more of the "
            f"first-token sinks than the sparse term alone ({', '.join(more) or 'none'}), in "
            f"{len(less)} fewer ({', '.join(less) or 'none'}); in the others the 95% interval of "
            f"the paired difference holds zero. Chance alone puts {0.05 * len(told):.2g} groups of "
            f"{len(told)} beside zero: no interval here is corrected for their number."
        )
    elif result.differences:
        said.append("The dense model has no first-token sinks that a term could carry.")
    return said


def _table(result: Result) -> Table:
    rows = [
        (
            row.group,
            LEFT[row.left],
            f"{row.removed:.3f}",
            f"{row.nll.mean:+.3f} [{row.nll.low:+.3f}, {row.nll.high:+.3f}]",
            shown(row.kept.first_recall),
            shown(row.kept.later_recall),
            shown(row.kept.later_precision),
        )
        for row in result.rows
    ]
    sizes = result.config.sizes
    return Table(
        (
            *("group", "left on", "removed", "Δ nats a token"),
            *("first sinks, recall", "later sinks, recall", "precision"),
        ),
        rows,
        "Removed: ‖(W - Ŵ)D‖² / ‖WD‖², mean over the group's matrices. 95% intervals over "
        f"{sizes.windows} windows, paired with the dense model, and "
        f"{sizes.sequences} sequences of {result.inputs.text}. Of all heads' sinks, also those "
        "that the group does not touch.",
    )
