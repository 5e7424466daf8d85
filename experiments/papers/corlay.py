"""Corlay (bibnum.ensta.fr/10853): sink heads that read k columns, by k and by layers.

Queries and keys of heads with a first-token sink keep k input channels. Controls: the channels
that are largest on average over all tokens, and random ones. Layers are chosen on calibration
text, those whose pruning costs it least, up to half of the sink heads; random layers beside them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from experiments.findings import ABOVE_ZERO, Finding, Region
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.work import DEMO, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Picture, Section, Table
from experiments.settings import SEEDS, Reading, between, some, within

CLAIMED, K = 0.91, 10
COLUMNS = ("model", "of all weights", "nats above dense", "accuracy kept")
SHORT = Amounts(calibration=8, windows=10, context=256)


@dataclass(frozen=True)
class Config:
    """Prune sink heads to k columns, in all layers and in some."""

    reading: Reading = DEMO
    amounts: Amounts = SHORT
    columns: tuple[int, ...] = (1, 10, 100)
    """Channels that are left; the claim is about 10."""
    epsilon: float = 0.3
    """A sink head's α at the first token passes this in 90% of the calibration windows."""
    seed: int = 0
    """Of the random columns and layers."""


PRESETS = {
    "smallest": Config(amounts=SMALLEST, columns=(10,)),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Llama-2-7b-hf", device="cuda"), PAPER),
}


def run(config: Config, progress: Progress) -> Answer:
    """Find the heads, choose layers, prune each way; raises as `prepared` and the methods do."""
    from experiments.parts import sink_layers
    from experiments.parts.standing import each, retained

    some("columns", config.columns)
    within("columns", min(config.columns), 1)
    between("epsilon", config.epsilon, 0, 1)
    within("seed", config.seed, 0, SEEDS)
    work = prepared(config.reading, config.amounts, progress)
    heads = sink_layers.chosen(work, config.epsilon, K, config.seed, progress)
    methods = sink_layers.methods(heads, config.columns, K, config.seed)
    found = each(work, methods, work.windows, progress)
    dense = found["dense"]
    kept = {name: retained(one, dense) for name, one in found.items()}
    above = {name: str(interval(one.nll - dense.nll)) for name, one in found.items()}
    rows = [(name, f"{m.kept:.3f}", above[name], str(kept[name])) for name, m in found.items()]
    sizes = ", ".join(f"{name}: {len(these)} heads" for name, these in heads.items())
    caption = f"Next-token accuracy; 95% intervals over windows, paired. {sizes}."
    units = {f"{name}: nats": one.nll for name, one in found.items()}
    units |= {f"{name}: accuracy": one.hits for name, one in found.items()}
    findings = list(_findings(config, found, kept))
    tables = [Table(COLUMNS, rows, caption)]
    return Answer(config, work.inputs, findings, tables, units, {"kept": kept})


def _findings(config: Config, found: dict, kept: dict) -> Iterator[Finding]:
    def finding(which, case, effect, unit, control, claimed=ABOVE_ZERO):
        key = f"corlay/abstract/{which}"
        return Finding(key, case, effect, unit, "windows", claimed, control)

    best, other = (f"{which}, k = {K}, bos" for which in ("least cost", "random"))
    control = f"random layers, as many heads: {kept[other]}"
    yield finding("kept", best, kept[best], "of the accuracy", control, Region(low=CLAIMED))
    more = interval(found[other].nll - found[best].nll)
    yield finding("layers", f"{best} against random layers", more, "nats a token", control)
    for k in config.columns:
        for by, words in (("random", "random columns"), ("mean", "the largest on average")):
            less = found[f"all, k = {k}, {by}"].nll
            more = interval(less - found[f"all, k = {k}, bos"].nll)
            control = f"{words} above dense: {interval(less - found['dense'].nll)}"
            yield finding("bos", f"against {words}, k = {k}", more, "nats a token", control)


def sections(result: Answer) -> list[Section]:
    """Claims, accuracies, and accuracy against k."""
    from experiments.parts.curves import curves

    ks, kept = result.config.columns, result.data["kept"]
    lines = {by: [kept[f"all, k = {k}, {by}"] for k in ks] for by in ("bos", "mean", "random")}
    across, title = "columns kept (k)", "Sink heads of all layers"
    drawn = curves(ks, lines, across=across, along="of the accuracy", title=title, log=True)
    picture = Picture("columns", drawn, "95% bands over windows.")
    return answer.sections(result, "Sink heads by few columns", [picture])
