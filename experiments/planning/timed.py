"""Measuring this machine: a few seconds, and a few more for every method."""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from bridge import checkpoint
from bridge.compress import compress
from bridge.replace import replaced
from bridge.statistics import diagonal_moment, second_moment
from bridge.stream import evaluating, record
from bridge.watch import Seen
from experiments import measure, provenance, roster
from experiments.planning.fit import fitted
from experiments.planning.rates import Cost, Rates, elements, machine, passed
from experiments.planning.work import work
from experiments.settings import Budget
from mech.disk import write_whole

FITTED_AT = ((320, 320), (640, 384), (768, 1152))
"""Shapes (d_out, d_in) at which methods are timed: no family's."""
MODELS = ((192, 640, 4, 320), (320, 768, 8, 64), (448, 1280, 8, 160), (640, 1600, 10, 224))
"""Width, width of the MLP, heads of the models of two blocks whose passes are timed; tokens of
each of the four sequences that they read: of other proportions, so that costs come apart."""
ROUNDS = 3


def measured(
    names: Sequence[str],
    budget: Budget,
    imported: float,
    tell: Callable[[str], None],
) -> Rates:
    """What this machine costs, and these methods on it.

    `imported`: the processor seconds that the imports took.
    """
    with torch.no_grad():
        found = _machine(imported)
        for name in names:
            tell(f"measuring {name}")
            found = replace(found, methods={**found.methods, name: _method(name, budget)})
    return found


def _seconds(run: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """The least processor time of some runs: what else the machine does only ever adds."""
    times = []
    for _ in range(rounds):
        begun = time.process_time()
        run()
        times.append(time.process_time() - begun)
    return max(min(times), 1e-7)


def _machine(imported: float) -> Rates:
    first = _nothing(roster.build("magnitude", Budget()))
    base = provenance.peak_memory()
    operation, element, attended, looked = _passes()
    squared, moment = _moments()
    hashed, written = _files()
    logits, wanted = torch.randn(128, 8192), torch.randint(0, 8192, (128,))
    scored = _seconds(lambda: nn.functional.cross_entropy(logits, wanted, reduction="none"))
    return Rates(
        machine=machine(),
        base=base,
        start=imported + first,
        operation=operation,
        element=element,
        attended=attended,
        looked=looked,
        scored=scored / logits.numel(),
        squared=squared,
        moment=moment,
        hashed=hashed,
        written=written,
        methods={},
    )


def _passes() -> tuple[float, float, float, float]:
    """Small models, timed as the driver runs them and as sinks are looked for."""
    amounts, seconds, looked, looks = [], [], [], []
    generator = torch.Generator().manual_seed(0)
    for width, mlp, heads, seq in MODELS:
        ids = torch.randint(0, 64, (4, seq), generator=generator)
        model = _model(width, mlp, heads)
        linear = 2 * (4 * width * width + 3 * width * mlp)
        amounts.append(passed(ids.shape, linear, 2 * elements(width, mlp), 2 * width))
        with evaluating(model):
            seconds.append(_seconds(lambda model=model, ids=ids: record(model, [ids])))
            both = _seconds(
                lambda model=model, ids=ids: measure.sink_scores(model, ids, lambda _: None), 2
            )
        looks.append(max(both - seconds[-1], 1e-6))
        looked.append([2 * heads * ids.numel() * ids.shape[1]])
    operation, element, attended = fitted(amounts, seconds)
    return operation, element, attended, fitted(looked, looks)[0]


def _moments() -> tuple[float, float]:
    rows, squares, seconds, full = [], [], [], []
    for d in (320, 448, 640):
        x = torch.randn(640, d)
        square, whole = diagonal_moment.init(d), second_moment.init(d)
        seconds.append(_seconds(lambda x=x, s=square: diagonal_moment.update(s, x)))
        full.append(_seconds(lambda x=x, s=whole: second_moment.update(s, x)))
        squares.append([x.numel()])
        rows.append([2.0 * x.numel() * d])
    return fitted(squares, seconds)[0], fitted(rows, full)[0]


def _files() -> tuple[float, float]:
    content = os.urandom(2**24)
    hashed = _seconds(lambda: hashlib.sha256(content))
    with tempfile.TemporaryDirectory() as folder:
        written = _seconds(lambda: write_whole(Path(folder) / "x", content))
    return hashed / len(content), written / len(content)


def _nothing(method: Any) -> float:
    """Seconds of all that `ctr compress` does, of a model of two tiny blocks."""
    begun = time.process_time()
    model, ids = _model(32, 64, 4), torch.arange(24).view(2, 12)
    measure.sink_scores(model, ids, lambda _: None)
    measure.window_losses(model, ids, None, lambda _: None)
    compress(model, method, [ids])
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(model, None, Path(folder) / "saved", {})
    return time.process_time() - begun


def _model(width: int, mlp: int, heads: int) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=width, intermediate_size=mlp, num_hidden_layers=2,
        num_attention_heads=heads, num_key_value_heads=heads,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def resident() -> int:
    """Bytes of this process in memory now."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class _Nowhere(nn.Module):
    """A linear's model, where it has none."""

    config = None


def _method(name: str, budget: Budget) -> Cost:
    method: Any = roster.build(name, budget)
    generator = torch.Generator().manual_seed(0)
    before = resident()
    started = time.process_time()
    _nothing(method)  # what is compiled or imported on the way
    once = time.process_time() - started
    start = max(once - _nothing(method), 0.0)
    grown = max(resident() - before, 0)
    amounts, seconds, entries, calls = [], [], [], []
    for m, n in FITTED_AT:
        run = _once(name, method, m, n, generator)
        amounts.append((m * n, work(name, method, m, n)))
        seconds.append(_seconds(run, 2))
        operator, x = run().operator, torch.randn(1, n, generator=generator)
        entries.append([m * n])
        calls.append(_seconds(lambda operator=operator, x=x: operator(x)))
    entry, operation = fitted(amounts, seconds)
    return Cost(start, entry, operation, fitted(entries, calls)[0], grown)


def _once(name: str, method: Any, m: int, n: int, generator: torch.Generator) -> Callable[[], Any]:
    linear = nn.Linear(n, m, bias=False, device="meta")
    weight = 0.03 * torch.randn(m, n, generator=generator)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    x = torch.randn(640, n, generator=generator)
    kind = method.statistic
    seen = Seen(kind.update(kind.init(n), x), diagonal_moment.update(diagonal_moment.init(n), x))
    return lambda: replaced(_Nowhere(), "layers.0.timed", linear, method, seen, weighted=False)
