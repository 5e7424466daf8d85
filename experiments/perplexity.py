"""How well does a model predict a text? Token-level, strided, the definition printed."""

import math
from dataclasses import dataclass, field

from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import Reading, within


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


@dataclass(frozen=True)
class Result:
    """nll in nats a token, with its standard error over windows."""

    config: Config
    inputs: Inputs
    nll: float
    ppl: float
    standard_error: float
    scored: int
    windows: int
    definition: str


def run(config: Config, progress: Progress) -> Result:
    """Load, cut into windows, score every token once.

    Raises:
        BadOption: a negative number of tokens.
        BadInput: windows that cannot be cut, or are longer than the model was made for.
    """
    from bridge import evaluate
    from experiments import measure
    from experiments.text import read_text
    from mech import tokens

    within("tokens", config.tokens, 0)
    reading = config.reading
    loaded = measure.loaded_model(reading, progress)
    source = read_text(reading.text, "evaluation")
    encoded = tokens.encode(loaded.tokenizer, source.text, bos=reading.bos)
    progress.say(f"BOS: {encoded.decision}")
    body = encoded.ids[1:] if encoded.bos else encoded.ids
    body = body[: config.tokens] if config.tokens > 0 else body
    windows = max(1, -(-len(body) // max(config.stride, 1)))
    with progress.task("perplexity", windows) as advance:
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
    )


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
    return [Section("Perplexity", tables=[table])]
