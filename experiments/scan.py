"""What does it cost to read every sink of a long text, beside eager attention and no reading?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tyro

from experiments.intervals import Interval, interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Picture, Section, Table
from experiments.settings import SEEDS, BadOption, within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from torch import Tensor
    from transformers import PreTrainedModel

    from experiments.scan_floor import Floor
    from experiments.scan_ways import Peak, Spent

GIGA = 1e9


@dataclass(frozen=True)
class Config:
    """Time and memory of a whole scan, paired with eager attention and with a plain forward."""

    model: tyro.conf.Positional[str] = "smollm2"
    """Local folder, GGUF file, or smollm2 (the demo model)."""
    seq: int = 2048
    """Tokens at which the three ways are paired."""
    repeats: int = 3
    """Paired timings, one way after the other."""
    growth: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)
    """Tokens at which the scan alone is measured; empty: none."""
    blocks: int = 4
    """Blocks of the model that growth is measured on: all have the same shapes."""
    whole: bool = False
    """Whether the longest of `growth` is also scanned with all blocks, in a process of its own."""
    seed: int = 0
    """What the random tokens are drawn from."""


class Grown(NamedTuple):
    """The scan of the first blocks at one length."""

    seq: int
    peak: "Peak"


@dataclass(frozen=True)
class Result:
    """Repeats of each way, peaks of each way, growth, and the floor."""

    config: Config
    inputs: Inputs
    spent: dict[str, list["Spent"]]
    peaks: dict[str, "Peak"]
    growth: list[Grown]
    floor: "Floor"
    apart: float  # largest difference of what a key receives, scan from eager, over its T
    longest: int  # tokens that the model was made for
    whole: "Peak | None" = None  # all blocks at the longest length, where asked for


def run(config: Config, progress: Progress) -> Result:
    """The three ways in turn, each once more in a process of its own, then growth.

    Raises:
        BadOption: a size that cannot be measured.
    """
    _check(config)
    import torch

    from experiments import scan_ways as ways
    from experiments.measure import longest
    from experiments.scan_floor import floor
    from mech.capture import capture_blocks
    from mech.load import load

    torch.set_num_threads(1)
    with progress.task(f"load {config.model}") as advance:
        loaded = load(config.model, advance=advance)
    most = longest(loaded.model)
    if beyond := [seq for seq in (config.seq, *config.growth) if seq > most]:
        progress.say(f"{max(beyond):,} tokens are more than the {most:,} the model was made for")
    tokens = ways.random_tokens(loaded.model, config.seq, config.seed)
    heads = capture_blocks(loaded.model, tokens[:, :64], lambda block: block.heads)
    at = np.arange(config.seq)[None]
    least = floor(heads[0]._replace(low=np.zeros_like(at), high=at), len(heads))
    spent, difference = _timed(config, loaded.model, tokens, progress)
    peaks = {}
    with progress.task("memory", len(ways.WAYS)) as advance:
        for way in ways.WAYS:
            peaks[way] = ways.apart(way, config.model, config.seq, config.seed)
            advance(way)
    grown = []
    with progress.task("growth", len(config.growth)) as advance:
        for seq in config.growth:
            peak = ways.apart("scan", config.model, seq, config.seed, config.blocks)
            grown.append(Grown(seq, peak))
            advance(f"{seq} tokens")
    whole = None
    if config.whole and config.growth:
        with progress.task("all blocks at the longest length"):
            whole = ways.apart("scan", config.model, max(config.growth), config.seed)
    inputs = Inputs(model=loaded.name, model_sha256=loaded.sha256, dtype="float32", threads=1)
    return Result(config, inputs, spent, peaks, grown, least, difference, most, whole)


def _timed(
    config: Config, model: "PreTrainedModel", tokens: "Tensor", progress: Progress
) -> tuple[dict[str, list["Spent"]], float]:
    """CPU seconds of every way in turn, and how far the scan lies from eager attention."""
    from experiments import scan_ways as ways

    spent: dict[str, list[Spent]] = {way: [] for way in ways.WAYS}
    difference = 0.0
    with progress.task("paired", config.repeats * len(ways.WAYS)) as advance:
        for _ in range(config.repeats):
            found = {}
            for way in ways.WAYS:
                found[way], seconds = ways.go(way, model, tokens)
                spent[way].append(seconds)
                advance(way)
            gap = np.abs(found["scan"] - found["eager"]).max() / config.seq
            difference = max(difference, float(gap))
    return spent, difference


def _check(config: Config) -> None:
    within("seq", config.seq, 65)
    within("repeats", config.repeats, 2, 100)
    within("blocks", config.blocks, 1)
    within("seed", config.seed, 0, SEEDS)
    for seq in config.growth:
        within("growth", seq, 65)
    if len(config.growth) == 1:
        raise BadOption("--growth: give two lengths or more, or none: one has no exponent")


def sections(result: Result) -> list[Section]:
    """Ratios with intervals, memory, the floor, and growth."""
    found = [_paired(result)]
    if result.growth:
        found.append(_grown(result))
    return found


def ratio(result: Result, over: str, under: str, what: str) -> Interval:
    """A paired ratio of CPU seconds, `over` by `under`."""
    pairs = zip(result.spent[over], result.spent[under], strict=True)
    return interval(np.array([getattr(a, what) / getattr(b, what) for a, b in pairs]))


def _paired(result: Result) -> Section:
    seq, repeats = result.config.seq, result.config.repeats
    memory = result.peaks["eager"].bytes_ / result.peaks["scan"].bytes_
    rows = [
        ("time in attention, eager over scan", str(ratio(result, "eager", "scan", "attention"))),
        ("whole pass, eager over scan", str(ratio(result, "eager", "scan", "whole"))),
        ("whole pass, scan over plain SDPA", str(ratio(result, "scan", "sdpa", "whole"))),
        ("time in attention, scan over SDPA", str(ratio(result, "scan", "sdpa", "attention"))),
        ("peak memory above the model, eager over scan", f"{memory:.1f}"),
    ]
    table = Table(
        ("ratio", "mean and 95% interval"),
        rows,
        f"{seq:,} tokens, all blocks, float32, one thread; n = {repeats} repeats, the three ways "
        "in turn; CPU time. The scan's time in attention contains the sums over queries, eager's "
        "does not. Memory: one process a way.",
    )
    text = [
        "A scan reads what every key of every head receives, and all else that a block trace "
        "holds. What it finds is what eager attention gives: the largest difference of the "
        f"attention received by a key is {result.apart:.1e} of the number of queries.",
        _floored(result),
    ]
    return Section(f"A scan of {seq:,} tokens", text, [table, _memory(result)])


def _floored(result: Result) -> str:
    floor = result.floor
    ours = float(np.mean([spent.attention for spent in result.spent["scan"]]))
    eager = float(np.mean([spent.attention for spent in result.spent["eager"]]))
    return (
        "The floor of the scan's attention is two matrix products, one exponential and one sum "
        "an entry, at the rates of this processor measured in the same process: the scan takes "
        f"{ours / floor.total:.2f} times the floor ({floor.products / floor.total:.0%} products, "
        f"{floor.exponentials / floor.total:.0%} exponentials, {floor.sums / floor.total:.0%} "
        f"sums). At the floor eager attention would take {eager / floor.total:.1f} times as long."
    )


def _memory(result: Result) -> Table:
    rows = [(way, f"{peak.bytes_ / GIGA:.3f}") for way, peak in result.peaks.items()]
    return Table(
        ("way", "peak above the model, GB"),
        rows,
        f"{result.config.seq:,} tokens, all blocks; a process each, after a pass of 64 tokens.",
    )


def exponent(result: Result, what: str) -> float:
    """The slope of log time against log tokens, least squares."""
    seq = np.log([grown.seq for grown in result.growth])
    seconds = np.log([getattr(grown.peak.spent, what) for grown in result.growth])
    return float(np.polyfit(seq, seconds, 1)[0])


def _grown(result: Result) -> Section:
    first = result.growth[0]
    rows = [
        (
            f"{grown.seq:,}",
            f"{grown.peak.spent.attention / first.peak.spent.attention:.2f}",
            f"{(grown.seq / first.seq) ** 2:.0f}",
            f"{grown.peak.spent.whole / first.peak.spent.whole:.2f}",
            f"{grown.peak.bytes_ / GIGA:.3f}",
        )
        for grown in result.growth
    ]
    table = Table(
        ("tokens", "attention", "T²", "whole pass", "peak above the model, GB"),
        rows,
        f"First {result.config.blocks} blocks, a process for each length, n = 1; CPU time relative "
        f"to {first.seq:,} tokens. One block's arrays are in memory at a time, so that all blocks "
        "need little more than a few.",
    )
    text = [
        f"Time in attention grows as T^{exponent(result, 'attention'):.2f}, the whole pass as "
        f"T^{exponent(result, 'whole'):.2f} (least squares over {len(result.growth)} lengths). "
        f"The model was made for {result.longest:,} tokens: beyond, time and memory are measured, "
        "and what it attends to says nothing."
    ]
    if result.whole is not None:
        text.append(
            f"A scan of all blocks at {max(result.config.growth):,} tokens, in a process of its "
            f"own: {result.whole.bytes_ / GIGA:.3f} GB above the model at its peak (n = 1)."
        )
    return Section("Longer texts", text, [table], [_curve(result)])


def _curve(result: Result) -> Picture:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6))
    axes = figure.add_subplot()
    seq = np.array([grown.seq for grown in result.growth])
    for what, label in (("attention", "in attention"), ("whole", "whole pass")):
        seconds = np.array([getattr(grown.peak.spent, what) for grown in result.growth])
        axes.loglog(seq, seconds / seconds[0], marker="o", label=label)
    axes.loglog(seq, (seq / seq[0]) ** 2.0, color="#999999", ls="--", label="T²")
    axes.set(xlabel="tokens", ylabel="CPU time, first = 1", title="A scan's time by length")
    axes.legend()
    return Picture(
        "growth",
        figure,
        f"CPU time of a scan of {result.config.blocks} blocks, relative to {seq[0]:,} tokens.",
    )
