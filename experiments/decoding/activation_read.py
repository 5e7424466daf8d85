"""Reads a model for `activation`: texts, calibration, TEAL's greedy, the plans that were given."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

from jaxtyping import Int
from torch import Tensor

from bridge.decode.baselines import greedy
from bridge.decode.inputs import Inputs, calibrate
from bridge.evaluate import definition
from bridge.sites import linears
from experiments import measure, provenance
from experiments.decoding import activation_plans, activation_ways
from experiments.decoding.activation import Config, Variant
from experiments.decoding.activation_settle import Settling
from experiments.progress import Progress
from experiments.remembered import Found, remembered
from experiments.text import Half, Text, read_text
from mech import tokens
from mech.load import Loaded


@dataclass(frozen=True)
class Work:
    """Everything that variants share; what is slow is done when it is first asked for."""

    config: Config
    loaded: Loaded
    inputs: provenance.Inputs
    calibration: Int[Tensor, "windows seq"]
    calibration_source: str
    windows: Int[Tensor, "windows seq"]
    bos_id: int | None
    definition: str
    before: float | None
    shapes: dict[str, tuple[int, int]]
    progress: Progress

    @classmethod
    def prepared(cls, config: Config, progress: Progress) -> "Work":
        """Load, and cut windows.

        Raises:
            BadOption, BadInput: see `activation.run`.
        """
        for method in config.methods:
            activation_ways.known(method)  # refused before the work
        loaded = measure.loaded_model(config.reading, progress)
        amounts = config.amounts
        calibration, _, source = _windows(
            loaded, config, "calibration", amounts.calibration_seq, amounts.calibration
        )
        windows, encoded, text = _windows(
            loaded, config, "evaluation", amounts.context, amounts.windows
        )
        bos_id = int(encoded.ids[0]) if encoded.bos else None
        width = amounts.context - encoded.bos
        words = definition(context=amounts.context, stride=width, prefix=bos_id)
        first = int(amounts.context * config.sparse_from)
        if first:
            words += f"; the first {first} tokens of a window are dense, those after are scored"
        progress.say(words)
        inputs = measure.described(loaded, config.reading, encoded, text)
        shapes = {n: (m.out_features, m.in_features) for n, m in linears(loaded.model).items()}
        return cls(config, loaded, inputs, calibration, source.source, windows, bos_id, words,
                   None, shapes, progress)  # fmt: skip

    @property
    def numbers(self) -> int:
        """Of all linears."""
        return sum(d_out * d_in for d_out, d_in in self.shapes.values())

    @cached_property
    def given(self) -> activation_ways.Given:
        """What methods ask for."""
        return activation_ways.Given(
            self.loaded.model, self.shapes, lambda: self.read, lambda: self.paths, self.settling,
            self.config.phases, self.config.seed,
        )  # fmt: skip

    @property
    def settling(self) -> Settling:
        """On the first calibration sequences."""
        config, amounts = self.config, self.config.amounts
        return Settling(
            self.loaded.model,
            lambda: self.calibration[: amounts.settling].split(measure.AT_ONCE),
            config.settle, config.sparse_from, amounts.keep, config.seed, self.progress,
        )  # fmt: skip

    @cached_property
    def read(self) -> Inputs:
        """What the dense linears read of the calibration text."""
        batches = self.calibration.split(measure.AT_ONCE)
        with self.progress.task("calibrate", len(batches)) as advance:
            return calibrate(
                self.loaded.model,
                batches,
                keep=self.config.amounts.keep,
                seed=self.config.seed,
                advance=advance,
            )

    @cached_property
    def paths(self) -> list[list[greedy.Raised]]:
        """TEAL's greedy, to the highest sparsity; kept in the folder like a variant."""
        most, amounts = max(self.config.sparsities), self.config.amounts
        options = greedy.Options(step=amounts.greedy_step, lazy=True)
        ids = self.calibration[: amounts.greedy, : amounts.greedy_seq]
        key = self.key("greedy", {"most": most, "options": list(options), "greedy": digest(ids)})

        def compute() -> Found:
            with self.progress.task("TEAL's greedy", len({n.split(".")[1] for n in self.shapes}),
                                    ) as advance:  # fmt: skip
                found = greedy.paths(self.loaded.model, self.read, [ids], most, options, advance)
            return Found({}, {"paths": [[list(step) for step in path] for path in found]})

        found = remembered(self.config.state, key, compute).facts["paths"]
        return [[greedy.Raised(name, by) for name, by in path] for path in found]

    @cached_property
    def found_plans(self) -> dict[Variant, activation_plans.Found]:
        """Plans and recipes that were given, by name and by what they leave out."""
        files = list(dict.fromkeys(file.resolve() for file in self.config.plans))
        plans = [activation_plans.read(file, self.loaded.model, self.shapes) for file in files]
        sparsities = [round(1 - one.share, 6) for one in plans]
        names = activation_plans.names(files, sparsities)
        return {
            Variant(name, sparsity, plan=True): one
            for name, sparsity, one in zip(names, sparsities, plans, strict=True)
        }

    def key(self, what: str, more: Mapping[str, Any]) -> dict[str, Any]:
        """All that numbers depend on, but for the code."""
        amounts = self.config.amounts
        return {
            "what": what,
            "model": self.inputs.model_sha256,
            "dtype": self.inputs.dtype,
            "int4": self.config.int4,
            "calibration": digest(self.calibration),
            "keep": amounts.keep,
            "seed": self.config.seed,
            **more,
        }


def _windows(
    loaded: Loaded, config: Config, half: Half, seq: int, count: int
) -> tuple[Int[Tensor, "windows seq"], tokens.Encoded, Text]:
    other = config.calibration_text if half == "calibration" else None
    source = read_text(other or config.reading.text, half)
    # Tokenizing a whole half costs seconds; English has more than two characters a token.
    encoded = tokens.encode(
        loaded.tokenizer, source.text[: 16 * seq * count], bos=config.reading.bos
    )
    return tokens.windows(encoded, seq, count), encoded, source


def digest(ids: Tensor) -> str:
    """Of token ids."""
    return sha256(ids.contiguous().numpy().tobytes()).hexdigest()[:16]
