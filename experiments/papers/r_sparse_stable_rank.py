"""R-Sparse, section 3: are the biases that left-out inputs add of low rank?

The matrix of biases, a row a token: B = (X ∘ (1-m)) Wᵀ, m = |x| > t. Its stable rank is given as
about 400 of 4,096. Beside it: the same of random numbers, of inputs whose channels were mixed over
tokens (what is left is the weight's own spectrum), and of the whole output. Stable rank sees the
largest direction only, so that two other counts stand by. First tokens are left out everywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.findings import BELOW_ZERO, Finding, Region
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.r_sparse import left_out_page
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading, between, within

WAYS = ("left out", "mixed", "whole", "random")


@dataclass(frozen=True)
class Config:
    """Count the directions of what linears lose, over samples of tokens."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP
    every: int = 5
    """One block of so many is read."""
    select: str = "*"
    """Glob over the linears."""
    sparsity: float = 0.5
    """Share of the inputs that is left out."""
    together: int = 2
    """Windows in a sample: its tokens should be more than a linear's outputs."""
    seed: int = 0
    """Of mixing, and of random numbers."""


PRESETS = {
    "smallest": Config(amounts=SMALLEST, select="layers.2.self_attn.[qk]*", together=1),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Llama-2-7b-hf", device="cuda"), PAPER, together=4),
}


def run(config: Config, progress: Progress) -> Answer:
    """The spectra of every chosen linear on every sample; raises as `prepared` does."""
    from experiments.parts.r_sparse import left_out, linears_read

    within("every", config.every, 1)
    between("sparsity", config.sparsity, 0, 1)
    within("together", config.together, 1, config.amounts.windows / 2)
    work = prepared(config.reading, config.amounts, progress)
    linears = linears_read.chosen(work.loaded.model, config.every, config.select)
    narrow = {name: left_out.narrow(linear.weight) for name, linear in linears.items()}

    def measure(name: str, x) -> np.ndarray:
        d_out, d_in = linears[name].out_features, linears[name].in_features
        x = x.unflatten(0, (-1, config.amounts.context))[:, 1:].flatten(0, 1)
        rest = left_out.rest(x, config.sparsity)
        read = (rest, left_out.mixed(rest, config.seed), x)
        found = [left_out.counts(left_out.spectrum(one, narrow[name]), d_out) for one in read]
        random = left_out.random_counts(len(x), d_out, d_in, config.sparsity, config.seed)
        return np.stack([*found, np.array(random)])

    batches = work.windows[: len(work.windows) // config.together * config.together]
    samples = batches.split(config.together)
    found = linears_read.measured(work, samples, list(linears), measure, progress)
    every = {name: np.stack(values) for name, values in found.items()}
    mean = linears_read.mean(every)
    units = {way: mean[:, row, 0] for row, way in enumerate(WAYS)}
    tables = [left_out_page.table(every, WAYS, left_out.COUNTS)]
    return Answer(config, work.inputs, list(_findings(config, units)), tables, units, every)


def _findings(config: Config, units: dict[str, np.ndarray]) -> Iterator[Finding]:
    here, case = units["left out"], f"{config.sparsity:.0%} left out"

    def found(which: str, case: str, values: np.ndarray, region: Region, against: str) -> Finding:
        control = f"{against}: {interval(units[against])}"
        unit, over = "of a linear's outputs", f"samples of {config.together} windows"
        claim = f"r-sparse/stable-rank/{which}"
        return Finding(claim, case, interval(values), unit, over, region, control)

    yield found("low", case, here, Region(high=0.1), "random")
    yield found("structure", f"{case}, beside random", here - units["random"], BELOW_ZERO, "random")
    yield found("structure", f"{case}, beside mixed", here - units["mixed"], BELOW_ZERO, "mixed")
    yield found("rest", case, here - units["whole"], BELOW_ZERO, "whole")


def sections(result: Answer) -> list[Section]:
    """Claims, then counts by role."""
    drawn = left_out_page.picture({name: np.array(v) for name, v in result.data.items()}, WAYS)
    return answer.sections(result, "Directions of the biases", [drawn])
