"""Does the theorem hold, to the last digit? Transformer and bound against the closed form."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from experiments import pictures
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Picture, Section, Table
from experiments.settings import SEEDS, within

if TYPE_CHECKING:  # jax is imported when the question is asked, not for --help
    from toy.tightness import BoundCheck
    from toy.verify import Saturation, Verification


@dataclass(frozen=True)
class Config:
    """Check the averaging theorem by numbers."""

    agreement: int = 1000
    """Random (T, t, x, s, b, d) on which the transformer is held against the closed form."""
    cases: int = 100_000
    """Random and adversarial cases over all claims together."""
    random: int = 10_000
    """Random inputs on which both error bounds are tried, beside the claims."""
    adversarial: int = 5_000
    """Inputs that a maximiser has made as bad as it could, ten a setting."""
    seed: int = 0
    """What all randomness is derived from."""


class ClaimCheck(NamedTuple):
    """One claim and the case where it came closest to failing."""

    name: str
    statement: str
    source: str
    cases: int
    violations: int
    largest: float

    @property
    def holds(self) -> bool:
        """No case with measured over proved above 1, and none that is not a number."""
        return self.violations == 0


@dataclass(frozen=True)
class Result:
    """Everything that was checked."""

    config: Config
    inputs: Inputs
    found: "Verification"
    claims: list[ClaimCheck]
    seconds: float
    """What it all took, compilation included."""


def run(config: Config, progress: Progress) -> Result:
    """The claims, then the four checks of `toy.verify`.

    Raises:
        BadOption: nothing is asked for, or a negative seed.
    """
    from toy import verify

    for option in ("agreement", "random", "adversarial", "cases"):
        within(option, getattr(config, option), 1)
    within("seed", config.seed, 0, SEEDS)
    begun = time.monotonic()
    claims = _claims(config.cases, config.seed, progress)
    every = 100
    total = (config.random + config.adversarial) // every
    with progress.task("bound", total) as advance:
        reported = 0

        def done(inputs: int) -> None:
            nonlocal reported
            while reported < inputs // every:
                reported += 1
                advance(f"{reported * every} inputs")

        found = verify.verify(
            config.agreement,
            random_inputs=config.random,
            adversarial_inputs=config.adversarial,
            seed=config.seed,
            advance=done,
        )
    seconds = time.monotonic() - begun
    return Result(config, Inputs(device="cpu", dtype="float64"), found, claims, seconds)


def _claims(cases: int, seed: int, progress: Progress) -> list[ClaimCheck]:
    from toy.claims import CLAIMS, check

    each = -(-cases // len(CLAIMS))
    with progress.task("claims", len(CLAIMS)) as advance:
        found = check(each, seed, advance=advance)
    return [
        ClaimCheck(name, claim.statement, claim.source, *found[name])
        for name, claim in CLAIMS.items()
    ]


def sections(result: Result) -> list[Section]:
    """The theorem, what was tried against it, and what it does not cover."""
    return [_theorem(result), _refused(result)]


def _theorem(result: Result) -> Section:
    bound = result.found.bound
    broken = [check.name for check in result.claims if not check.holds]
    text = [
        "A two-layer transformer with rank-one weights averages the numbers after a separator: "
        "attention rests on [SEP] (catch), [SEP] writes one large coordinate into every token "
        "behind it (tag), and the second layer attends evenly to the tagged tokens (release).",
        _found(result, broken),
        "The theorem says that these weights suffice. It does not say that they are necessary, "
        "and in float32 it cannot even be seen: past the scale where every attention weight "
        "rounds to one, a float reports an error far below the true one (dotted curve).",
    ]
    holds = not broken and not bound.violations
    tables = [_claimed(result.claims)] + ([_tightness(bound)] if bound.settings else [])
    title = "The theorem holds" if holds else "The theorem FAILS"
    return Section(title, text, tables, [_picture(result.found.saturation)])


def _found(result: Result, broken: list[str]) -> str:
    agreement, bound = result.found.agreement, result.found.bound
    cases = sum(check.cases for check in result.claims)
    tight = (
        f"; Theorem B is {bound.tightness[2]:.2f} times the worst error found, the sharper bound "
        f"{bound.sharper[2]:.2f} times (medians of {bound.settings} settings)"
        if bound.settings
        else ""
    )
    return (
        f"The flax transformer equals the closed form to {agreement.worst:.1e} of max|x| on "
        f"{agreement.n:,} random inputs in float64. The two error bounds were violated "
        f"{bound.violations} times on {bound.random_inputs:,} random and "
        f"{bound.adversarial_inputs:,} adversarial inputs{tight}. "
        + (
            f"Every one of {len(result.claims)} claims holds on {cases:,} cases."
            if not broken
            else f"Claims that FAILED: {', '.join(broken)}."
        )
        + f" All of it took {result.seconds:.0f} s."
    )


def _claimed(claims: list[ClaimCheck]) -> Table:
    rows = [
        (
            check.name,
            check.statement,
            check.source,
            f"{check.cases:,}",
            f"{check.violations:,}",
            f"{check.largest:.4f}",
            "holds" if check.holds else "FAILS",
        )
        for check in claims
    ]
    return Table(
        ("claim", "statement", "proved in docs/theory.md", "cases", "violations", "ratio", ""),
        rows,
        "The largest ratio: measured over proved for an upper bound, proved over measured for a "
        "lower one. The statement holds where it is at most 1.",
    )


def _tightness(bound: "BoundCheck") -> Table:
    rows = [
        (name, *(f"{value:.2f}" for value in spread))
        for name, spread in (
            ("Theorem B", bound.tightness),
            ("sharper bound (docs/floats.md)", bound.sharper),
        )
    ]
    return Table(
        ("bound / worst error found", *(f"{100 * q:.0f}%" for q in bound.quantiles)),
        rows,
        f"Quantiles over the {bound.settings} settings whose Theorem B is below X.",
    )


def _picture(drawn: "Saturation") -> Picture:
    curves = {
        "bound (Theorem B)": drawn.bound,
        "true error (closed form)": drawn.error,
        "float64 transformer": drawn.float64,
        "float32 transformer": drawn.float32,
    }
    title = f"one random input, T = {drawn.T}, t = {drawn.t}, |x| ≤ {drawn.X:g}"
    return Picture(
        "bound",
        pictures.bound_against_error(drawn.s_tag, curves, title),
        "The error of the averaging transformer falls as fast as the bound says. Float32 drops "
        "below the true error and then stays at its own rounding; float64 ends where it "
        "reports an error of exactly zero, which a log scale cannot show.",
    )


def _refused(result: Result) -> Section:
    rows = [(r.case, r.name or "ACCEPTED", r.message) for r in result.found.refusals]
    return Section(
        "What the theorem does not cover",
        ["Cases outside its assumptions are refused by name, not answered with a number."],
        [Table(("case", "refused as", "message"), rows)],
    )
