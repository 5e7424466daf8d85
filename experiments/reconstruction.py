"""Which way of mending a quantised weight leaves the least output error, and on how many tokens?

Closed forms are optimal for the distribution they were fitted to; held-out text stands beside it.
Controls: a random subspace of the same rank, and plain rounding with as many bits as the low-rank
term costs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from experiments.intervals import interval, of_few
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import Reading, Sizes, within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.reconstruction_rows import Few, Row


@dataclass(frozen=True)
class Config:
    """Quantise some of a model's linears, mend them every way, and compare output errors."""

    reading: Reading = field(default_factory=Reading)
    bits: int = 3
    """Bits a code."""
    group: int = 64
    """Columns that share a scale."""
    rank: int = 32
    """Of the low-rank terms."""
    calibration: int = 8
    """Sequences that are fitted to."""
    held_out: int = 8
    """Sequences of the other half of the text, on which errors are also taken."""
    context: int = 256
    """Tokens of a sequence."""
    select: str = "layers.*[09].*"
    """Which linears, as a glob; blocks are the units of the intervals."""
    few: str = "layers.*9.*"
    """On which of them fits to few tokens are compared, as a glob."""
    tokens: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """How many tokens those fits see."""


@dataclass(frozen=True)
class Result:
    """A row for every linear and method, and one for every fit to few tokens."""

    config: Config
    inputs: Inputs
    rows: "list[Row]"
    few: "list[Few]"


def run(config: Config, progress: Progress) -> Result:
    """Read the dense model block by block; quantise and mend each linear every way.

    Raises:
        BadOption: a size that cannot be measured.
        BadInput: a glob that matches nothing, bits or a group that no code can have.
    """
    from bridge.quantizers import RoundToNearest
    from bridge.sites import linears
    from experiments import measure
    from experiments import reconstruction_rows as ways

    within("rank", config.rank, 1)
    within("held-out", config.held_out, 1)
    for tokens in config.tokens:
        within("tokens", tokens, 1, config.calibration * config.context)
    quantizer = RoundToNearest(config.bits, config.group)
    loaded = measure.loaded_model(config.reading, progress)
    chosen = linears(loaded.model, config.select)
    picked = linears(loaded.model, config.few) if config.tokens else {}
    sizes = Sizes(config.calibration, max(config.held_out, 2), config.context, 2, 64)
    material = measure.material(loaded, config.reading, sizes, progress)
    flat = material.calibration
    texts = {
        "fitted": flat.split(measure.AT_ONCE),
        "held out": material.evaluation[: config.held_out].split(measure.AT_ONCE),
        **{str(tokens): _first(flat, tokens) for tokens in config.tokens},
    }
    methods = ways.methods(quantizer, config.rank)
    found, fits = [], []
    with progress.task("quantise and mend", len(chosen)) as advance:
        for read in ways.walk(loaded.model, chosen, texts):
            fitted, held_out = read["fitted"], read["held out"]
            for name in fitted:
                weight = chosen[name].weight.detach()
                found += ways.rows(name, weight, methods, fitted[name], held_out[name])
                for tokens in config.tokens if name in picked else ():
                    little = read[str(tokens)][name]
                    fits += ways.few(name, weight, quantizer, config.rank, little, held_out[name])
                advance(name)
    return Result(config, material.inputs, found, fits)


def _first(windows, tokens: int) -> list:
    """The first tokens, as whole windows and the beginning of one more."""
    seq = windows.shape[1]
    whole, rest = divmod(tokens, seq)
    parts = [windows[:whole], windows[whole : whole + 1, :rest]]
    return [part for part in parts if part.numel()]


def sections(result: Result) -> list[Section]:
    """Errors by method on both texts; then the fits to few tokens."""
    found = [_by_method(result)]
    return [*found, _by_tokens(result)] if result.few else found


def _by_method(result: Result) -> Section:
    from experiments.reconstruction_rows import (
        DIAGONAL,
        EXACT,
        LOW_RANK,
        MENDED,
        RICHER,
        ROUNDED,
        SHRUNK,
    )

    config, rows = result.config, result.rows
    table = {(row.name, row.method): row for row in rows}
    names = list(dict.fromkeys(row.name for row in rows))
    ways = list(dict.fromkeys(row.method for row in rows))

    def won(form: str, text: str, others: Sequence[str]) -> str:
        less = [
            all(getattr(table[n, form], text) < getattr(table[n, o], text) for o in others)
            for n in names
        ]
        return f"{sum(less)} of {len(names)}"

    text = [
        f"On the text they were fitted to, QERA-exact has less output error than ZeroQuant-V2, "
        f"LQER, LoftQ and QERA-approximate on {won(EXACT, 'fitted', LOW_RANK)} linears; on "
        f"held-out text on {won(EXACT, 'held_out', LOW_RANK)}, shrunk on "
        f"{won(SHRUNK, 'held_out', LOW_RANK)}.",
        f"GPTQ is below rounding on {won(MENDED, 'fitted', [ROUNDED])} linears, held out on "
        f"{won(MENDED, 'held_out', [ROUNDED])}.",
        _storage(won(RICHER, "held_out", [EXACT]), names, table, config.rank),
    ]
    lines = []
    for way in ways:
        mine = [table[name, way] for name in names]
        ratio = [row.held_out / table[row.name, DIAGONAL].held_out for row in mine]
        lines.append(
            (
                way,
                f"{np.mean([row.bits for row in mine]):.2f}",
                _over_blocks(names, [row.fitted for row in mine]),
                _over_blocks(names, [row.held_out for row in mine]),
                _over_blocks(names, ratio),
            )
        )
    blocks = len({_block(name) for name in names})
    columns = ("method", "bits a weight", "fitted", "held out", "held out / QERA-approximate")
    caption = (
        f"Output error √(E‖(W - Ŵ) x‖² / E‖W x‖²), {config.bits} bits in groups of {config.group}, "
        f"rank {config.rank}: mean over {len(names)} linears, 95% intervals over their {blocks} "
        f"blocks; x of the dense model, {config.calibration} × {config.context} tokens fitted, "
        f"{config.held_out} × {config.context} held out. Bits count the factors in the model's "
        "format. Controls: a random subspace of the same rank; rounding with the most bits a code "
        "that take no more storage than the low-rank term does." + of_few(blocks)
    )
    return Section("Mending a quantised weight", text, [Table(columns, lines, caption)])


def _storage(
    won: str, names: Sequence[str], table: "Mapping[tuple[str, str], Row]", rank: int
) -> str:
    """Whether the low-rank term pays for what it stores, by the interval over blocks."""
    from experiments.reconstruction_rows import EXACT, RICHER

    ratios = [table[name, RICHER].held_out / table[name, EXACT].held_out for name in names]
    means = _block_means(names, ratios)
    over = None if len(means) == 1 or not np.isfinite(means).all() else interval(means)
    verdict = "which of the two is better here is not clear"
    if over is not None and over.high < 1:
        verdict = f"a term of rank {rank} is dear beside matrices of these shapes"
    elif over is not None and over.low > 1:
        verdict = f"a term of rank {rank} pays beside matrices of these shapes"
    return (
        f"At no more storage plain rounding with more bits a code is below QERA-exact on {won} "
        f"linears, held out, with {_over_blocks(names, ratios)} of its error: {verdict}."
    )


def _by_tokens(result: Result) -> Section:
    from experiments.reconstruction_rows import EXACT, PLAIN, SHRUNK

    few = result.few
    counts = sorted({fit.tokens for fit in few})
    worst = {
        form: max(fit.ratio for fit in few if fit.form == form) for form in (PLAIN, EXACT, SHRUNK)
    }
    never = "never worse than" if worst[SHRUNK] <= 1 else "NOT always as good as"
    text = [
        f"Fitted to {counts[0]:,} to {counts[-1]:,} tokens, shrunk QERA-exact is {never} the "
        f"diagonal form on held-out text: at most {worst[SHRUNK]:.3f} of its error, without "
        f"shrinkage {worst[EXACT]:.3f}. With R^½ and its inverse in float32, as in the papers' "
        f"code, it is up to {worst[PLAIN]:,.0f} times."
    ]
    lines = []
    for tokens in counts:
        line = [f"{tokens:,}"]
        for form in (PLAIN, EXACT, SHRUNK):
            fits = [fit for fit in few if (fit.tokens, fit.form) == (tokens, form)]
            ratios = [fit.ratio for fit in fits]
            line += [_over_blocks([fit.name for fit in fits], ratios), f"{max(ratios):.4g}"]
        lines.append(tuple(line))
    columns = ("tokens", PLAIN, "worst", "U Uᵀ E", "worst", "shrunk", "worst")
    caption = (
        "Held-out output error over that of QERA-approximate fitted to the same tokens, the first "
        f"of the text; mean over {len({fit.name for fit in few})} linears, 95% intervals over "
        f"their {len({_block(fit.name) for fit in few})} blocks."
    )
    return Section("Fitted to few tokens", text, [Table(columns, lines, caption)])


def _over_blocks(names: Sequence[str], values: Sequence[float]) -> str:
    """Mean and interval: linears of a block read what one stream brings, so blocks are the units.

    One block alone, and an inverse that does not exist, have no interval.
    """
    means = _block_means(names, values)
    if len(means) == 1 or not np.isfinite(means).all():
        return f"{np.mean(means):.3g}"
    return str(interval(means))


def _block_means(names: Sequence[str], values: Sequence[float]) -> Float[np.ndarray, " blocks"]:
    blocks = [_block(name) for name in names]
    means = [
        np.mean([v for v, b in zip(values, blocks, strict=True) if b == block])
        for block in sorted(set(blocks))
    ]
    return np.array(means, dtype=np.float64)


def _block(name: str) -> int:
    return int(name.split(".")[1])
