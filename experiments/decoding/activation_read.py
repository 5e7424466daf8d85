"""Reads a model for `activation`: calibration, every variant's losses, what it really read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from bridge.compress import compress
from bridge.decode.baselines import greedy
from bridge.decode.inputs import Inputs, calibrate
from bridge.decode.recipe import Recipe
from bridge.decode.settled import settled
from bridge.evaluate import TokenLosses, definition, token_losses
from bridge.fold import folded
from bridge.methods.gptq import GPTQ
from bridge.quantizers import RoundToNearest
from bridge.sites import linears, place
from experiments import measure, provenance
from experiments.decoding import activation_plans, activation_ways
from experiments.decoding.activation import DENSE, TEAL, Config, Variant
from experiments.progress import Advance, Progress
from experiments.remembered import Found, remembered
from experiments.text import Half, Text, read_text
from mech import tokens
from mech.errors import BadInput
from mech.load import Loaded

GROUP = 128


class Seen(NamedTuple):
    """One variant. nll: nats a scored token of each window. planned, read: shares of bytes."""

    nll: Float[np.ndarray, " windows"]
    planned: float
    read: float
    whole: bool = False


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
        """Load, cut windows, quantise where asked.

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
        work = cls(config, loaded, inputs, calibration, source.source, windows, bos_id, words,
                   None, shapes, progress)  # fmt: skip
        return work._quantised() if config.int4 else work

    @property
    def numbers(self) -> int:
        """Of all linears."""
        return sum(d_out * d_in for d_out, d_in in self.shapes.values())

    @cached_property
    def given(self) -> activation_ways.Given:
        """What methods ask for."""
        return activation_ways.Given(
            self.loaded.model, self.shapes, lambda: self.read, lambda: self.paths, self._settled,
            self.config.phases, self.config.seed,
        )  # fmt: skip

    def _settled(self, recipe: Recipe) -> Recipe:
        config, rounds = self.config, self.config.settle
        batches = self.calibration.split(measure.AT_ONCE)
        with self.progress.task("settle", rounds * len(batches)) as advance:
            return settled(
                self.loaded.model, recipe, batches, rounds=rounds, keep=config.amounts.keep,
                sparse_from=config.sparse_from, seed=config.seed, advance=advance,
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
        key = self.key("greedy", {"most": most, "options": list(options), "greedy": _digest(ids)})

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
        found = {}
        for file in self.config.plans:
            one = activation_plans.read(file, self.loaded.model, self.shapes)
            found[Variant(one.name, round(1 - one.share, 6), plan=True)] = one
        return found

    def key(self, what: str, more: Mapping[str, Any]) -> dict[str, Any]:
        """All that numbers depend on, but for the code."""
        amounts = self.config.amounts
        return {
            "what": what,
            "model": self.inputs.model_sha256,
            "dtype": self.inputs.dtype,
            "int4": self.config.int4,
            "calibration": _digest(self.calibration),
            "keep": amounts.keep,
            "seed": self.config.seed,
            **more,
        }

    def losses(self, advance: Advance) -> Float[np.ndarray, " windows"]:
        """Nats a scored token of each window, of the model as it stands."""
        lead = 0 if self.bos_id is None else 1
        context = self.windows.shape[1]
        width = context - lead
        found = token_losses(
            self.loaded.model, self.windows[:, lead:].flatten(), context=context, stride=width,
            prefix=self.bos_id, advance=advance,
        )  # fmt: skip
        return scored(found, width, lead, int(context * self.config.sparse_from))

    def _quantised(self) -> "Work":
        """The model in INT4, one matrix a linear again; its perplexity before."""
        with self.progress.task("before quantisation", len(self.windows)) as advance:
            before = float(np.exp(self.losses(advance).mean()))
        method = GPTQ(RoundToNearest(4, GROUP))
        with self.progress.task("GPTQ", len(self.shapes)) as advance:
            compress(
                self.loaded.model, method, self.calibration.split(measure.AT_ONCE), advance=advance
            )
        place(self.loaded.model, folded(self.loaded.model))
        return replace(self, before=before)


def scored(losses: TokenLosses, width: int, lead: int, first: int) -> Float[np.ndarray, " windows"]:
    """Mean nats of each window over the tokens that a gated token predicted.

    A token at place i of its window (after `lead` tokens of prefix) is predicted at place i - 1,
    which is gated from place `first` on.
    """
    window = losses.window.numpy()
    place_in_window = losses.position.numpy() - window * width + lead
    use = place_in_window - 1 >= first
    return np.bincount(window[use], losses.nll.numpy()[use]) / np.bincount(window[use])


def variants(work: Work) -> list[Variant]:
    """Dense, every method at every sparsity, plans with a TEAL of exactly their budget."""
    config, found = work.config, [DENSE]
    for sparsity in config.sparsities:
        found += [Variant(method, sparsity) for method in config.methods]
    for variant in work.found_plans:
        found += [Variant(TEAL, variant.sparsity), variant]
    return list(dict.fromkeys(found))


def measured(work: Work, variant: Variant, progress: Progress) -> Seen | str:
    """One variant, from the folder where it was measured before; or why it cannot be."""
    found = remembered(work.config.state, _key(work, variant), lambda: _measure(work, variant))
    facts = found.facts
    if "why" in facts:
        return facts["why"]
    return Seen(found.arrays["nll"], facts["planned"], facts["read"], facts["whole"])


def _key(work: Work, variant: Variant) -> dict[str, Any]:
    config = work.config
    more: dict[str, Any] = {
        "method": variant.method,
        "sparsity": variant.sparsity,
        "sparse_from": config.sparse_from,
        "windows": _digest(work.windows),
    }
    if config.settle and variant != DENSE:
        more["settle"] = config.settle
    if variant.plan:
        more["plan"] = work.found_plans[variant].digest
    if variant.method == "multi-phase":
        more["phases"] = config.phases
    if variant.method == "teal-greedy":
        amounts = config.amounts
        more["greedy"] = [amounts.greedy, amounts.greedy_seq, amounts.greedy_step]
        more["most"] = max(config.sparsities)
    return work.key("variant", more)


def _measure(work: Work, variant: Variant) -> Found:
    name = f"{variant.method} {variant.sparsity:g}"
    with work.progress.task(name, len(work.windows)) as advance:
        if variant == DENSE:
            facts = {"planned": 1.0, "read": 1.0, "whole": True}
            return Found({"nll": work.losses(advance)}, facts)
        try:
            if variant.plan:
                made = work.found_plans[variant].made(work.given)
            else:
                made = activation_ways.made(work.given, variant.method, variant.sparsity)
            with activation_ways.applied(work.given, made, work.config.sparse_from) as realised:
                nll = work.losses(advance)
        except BadInput as error:
            return _refused(variant, error)
    planned = made.planned if not math.isnan(made.planned) else realised.share
    facts = {"planned": planned, "read": realised.share, "whole": made.whole}
    return Found({"nll": nll}, facts)


def _refused(variant: Variant, error: BadInput) -> Found:
    """A budget that a method cannot meet is an answer; anything else is an error."""
    if variant.method.partition("-")[0] in ("cats", "griffin", "relu"):
        return Found({}, {"why": str(error)})
    raise error


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


def _digest(ids: Tensor) -> str:
    return sha256(ids.contiguous().numpy().tobytes()).hexdigest()[:16]
