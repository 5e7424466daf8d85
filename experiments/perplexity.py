"""How well does a model predict a text? Token-level, strided, the definition printed."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import BadOption, Reading, within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from torch import nn

    from bridge.decode.recipe import Recipe
    from bridge.decode.sparsified import Decoding


@dataclass(frozen=True)
class Config:
    """Perplexity of a model on a text."""

    reading: Reading = field(default_factory=Reading)
    context: int = 512
    """Tokens in a window."""
    stride: int = 256
    """Tokens between the starts of two windows; each token is scored once."""
    tokens: int = 16384
    """How many tokens of the text's second half to score at most; 0: all."""
    recipe: Path | None = None
    """Folder of a recipe (ctr sparsify): the model is decoded by it."""
    sparse_from: float = 0.0
    """With a recipe: the share of every window, at its start, that stays dense."""


class Sparse(NamedTuple):
    """read: numbers of the recipe's linears that a gated token read, over all of theirs, as
    counted. tokens: the share of all tokens that were gated."""

    linears: int
    read: float
    tokens: float


@dataclass(frozen=True)
class Result:
    """nll in nats a token, with its standard error over windows. sparse: of a recipe."""

    config: Config
    inputs: Inputs
    nll: float
    ppl: float
    standard_error: float
    scored: int
    windows: int
    definition: str
    sparse: Sparse | None = None


def run(config: Config, progress: Progress) -> Result:
    """Load, cut into windows, score every token once.

    Raises:
        BadOption: a negative number of tokens, a share of no recipe.
        BadInput: windows that cannot be cut, or are longer than the model was made for; a recipe
            that is none, or another model's.
    """
    from bridge import evaluate
    from bridge.decode.recipe import Recipe
    from experiments import measure
    from experiments.text import read_text
    from mech import tokens

    within("tokens", config.tokens, 0)
    within("sparse-from", config.sparse_from, 0, 1)
    if config.sparse_from and config.recipe is None:
        raise BadOption(f"--sparse-from {config.sparse_from}: give a --recipe (ctr sparsify)")
    recipe = None if config.recipe is None else Recipe.load(config.recipe)
    reading = config.reading
    loaded = measure.loaded_model(reading, progress)
    source = read_text(reading.text, "evaluation")
    encoded = tokens.encode(loaded.tokenizer, source.text, bos=reading.bos)
    progress.say(f"BOS: {encoded.decision}")
    body = encoded.ids[1:] if encoded.bos else encoded.ids
    body = body[: config.tokens] if config.tokens > 0 else body
    windows = max(1, -(-len(body) // max(config.stride, 1)))
    with (
        progress.task("perplexity", windows) as advance,
        _by(recipe, config.sparse_from, loaded.model) as decoding,
    ):
        found = evaluate.perplexity(
            loaded.model,
            body,
            context=config.context,
            stride=config.stride,
            prefix=int(encoded.ids[0]) if encoded.bos else None,
            advance=advance,
        )
    return Result(
        config=config,
        inputs=measure.described(loaded, reading, encoded, source),
        nll=found.nll,
        ppl=found.ppl,
        standard_error=found.standard_error,
        scored=found.tokens,
        windows=found.windows,
        definition=found.definition,
        sparse=None
        if decoding is None
        else Sparse(len(decoding.gated), decoding.read, decoding.tokens_sparse),
    )


@contextmanager
def _by(
    recipe: "Recipe | None", sparse_from: float, model: "nn.Module"
) -> Iterator["Decoding | None"]:
    """The model as it is, or decoded by the recipe."""
    if recipe is None:
        yield None
        return
    from bridge.decode.sparsified import sparsified

    with sparsified(
        model, recipe, sparse_from=sparse_from, layout="shared", count=True
    ) as decoding:
        yield decoding


def sections(result: Result) -> list[Section]:
    """One number, and what it means."""
    # One window has no standard error.
    error = "–" if math.isnan(result.standard_error) else f"{result.standard_error:.4f}"
    row = (
        result.inputs.model or "",
        f"{result.ppl:.4g}",
        f"{result.nll:.4f} ± {error}",
        str(result.scored),
        str(result.windows),
    )
    table = Table(
        ("model", "perplexity", "nats a token ± s.e.", "tokens", "windows"),
        [row],
        f"{result.definition}. The standard error takes windows as the independent units. "
        f"Text: {result.inputs.text}. BOS: {result.inputs.bos}.",
    )
    return [Section("Perplexity", _said(result), tables=[table])]


def _said(result: Result) -> list[str]:
    sparse = result.sparse
    if sparse is None:
        return []
    return [
        f"Decoded by the recipe {result.config.recipe}: {sparse.tokens:.1%} of the tokens were "
        f"gated, and read {sparse.read:.1%} of the numbers of {sparse.linears} linears."
    ]
