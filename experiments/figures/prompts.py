"""Chain of thought, inference, multiple choice: where do the sinks of each kind of prompt lie?

After figures 2, 4, 5 and 7 to 11 of Zhang & Papyan 2025 (arXiv:2502.00919), which show prompts of
these kinds and do not print them; ours are in `experiments/probing/prompts.py`. The control is
the same architecture with random weights on the same tokens.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from experiments.caught import SUPPORT, TAIL, Caught, Prompted, tail
from experiments.probing import prompted
from experiments.probing.prompts import PROMPTS
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import SEEDS, Reading, between, within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from jaxtyping import Int
    from torch import Tensor
    from transformers import PreTrainedModel

    from mech.trace import BlockTrace

Name = Literal["laugh", "zero-shot", "worked", "nli", "four-shot"]
TITLES: dict[str, str] = {
    "laugh": "Three moods",
    "zero-shot": "Chain of thought, zero-shot",
    "worked": "Chain of thought, one worked example",
    "nli": "Natural language inference",
    "four-shot": "Multiple choice, four examples",
}


@dataclass(frozen=True)
class Config:
    """Picture prompts of the kinds that the papers show."""

    reading: Reading = field(default_factory=Reading)
    prompts: tuple[Name, ...] = ("laugh", "zero-shot", "worked", "nli", "four-shot")
    """Which of them."""
    epsilon: float = 0.1
    """A key is a sink when it receives more than this share of attention on average."""
    seed: int = 0
    """What the random weights are drawn from."""


class Places(NamedTuple):
    """Heads of all layers, and their sinks: of the first token, and of guarded later ones."""

    heads: int
    first: int
    later: int


class Seen(NamedTuple):
    """One prompt in the model, and its sinks in random weights."""

    prompt: Prompted
    real: Places
    random: Places


@dataclass(frozen=True)
class Result:
    """Every prompt by name."""

    config: Config
    inputs: Inputs
    seen: dict[str, Seen]


def run(config: Config, progress: Progress) -> Result:
    """One model, then the same architecture with random weights, on each prompt.

    Raises:
        BadOption: epsilon or the seed is out of range, or a prompt is longer than the model.
    """
    from experiments import catching, measure

    between("epsilon", config.epsilon, 0, 1)
    within("seed", config.seed, 0, SEEDS)
    loaded = measure.loaded_model(config.reading, progress)
    texts = {
        name: catching.encoded(loaded, PROMPTS[name], config.reading.bos)
        for name in dict.fromkeys(config.prompts)
    }
    control = _random(loaded.model, config.seed)
    seen = {}
    with progress.task("prompts", len(texts)) as advance:
        for name, text in texts.items():
            real, drawn = (_places(m, text.ids, config.epsilon) for m in (loaded.model, control))
            seen[name] = Seen(catching.look(loaded, text, config.epsilon), real, drawn)
            advance(name)
    first = next(iter(texts.values()))
    inputs = measure.described(loaded, config.reading, first, None)
    return Result(config, inputs, seen)


def _random(model: "PreTrainedModel", seed: int) -> "PreTrainedModel":
    """The same architecture with the weights that its training would have begun from."""
    from copy import deepcopy

    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = type(model)(deepcopy(model.config))
    fresh.eval()
    torch.nn.Module.to(fresh, device=model.device, dtype=model.dtype)
    return fresh


def _places(model: "PreTrainedModel", ids: "Int[Tensor, ' seq']", epsilon: float) -> Places:
    from mech.capture import capture_blocks
    from mech.probes import sinks

    end = max(1, len(ids) - tail(len(ids)))

    def count(block: "BlockTrace") -> Places:
        found = sinks.sinks(sinks.score(block.received, block.reach)[0], epsilon)
        return Places(len(found), int(found[:, 0].sum()), int(found[:, 1:end].sum()))

    return Places(*map(sum, zip(*capture_blocks(model, ids[None], count), strict=True)))


def sections(result: Result) -> list[Section]:
    """The prompts side by side, then each in pictures."""
    epsilon = result.config.epsilon
    return [
        _together(result),
        *(
            Section(
                TITLES[name],
                [_words(seen.prompt)],
                pictures=[*prompted.drawings(seen.prompt, epsilon, f"{name}-")],
            )
            for name, seen in result.seen.items()
        ),
    ]


def _together(result: Result) -> Section:
    counts = Table(
        ("prompt", "tokens", "first token", "random weights", "later tokens", "random weights"),
        [
            (
                TITLES[name],
                f"{len(seen.prompt.tokens)}",
                *(f"{places.first} of {places.heads}" for places in (seen.real, seen.random)),
                *(f"{places.later}" for places in (seen.real, seen.random)),
            )
            for name, seen in result.seen.items()
        ],
        f"(Layer, head) places in which the first token receives more than {result.config.epsilon} "
        f"of the attention, and (layer, head, token) places of later tokens, the last {SUPPORT} "
        f"left out ({TAIL} below 64 tokens); n = 1 prompt each, so that there is no interval. "
        "Random weights: the architecture as its training would begin.",
    )
    rows = [_row(TITLES[n], seen.prompt.caught) for n, seen in result.seen.items()]
    tags = Table(
        ("prompt", "head", "reads", "writes", "released", "control head writes"),
        rows,
        "η² of the groups of tokens with the same sink, with the 95% quantile of random contiguous "
        "cuts behind the stroke: above it is beyond chance. The head has the clearest sinks; its "
        "colours did not choose it. Control: the head of its block that rests least on the sinks.",
    )
    text = [
        "Each prompt is one sample: what stands here illustrates; intervals over text are in "
        "`ctr probe`.",
        _short(result),
    ]
    return Section("Prompts side by side", text, [counts, tags])


def _short(result: Result) -> str:
    """A head without any preference gives its first key H_T / T: that is a count of nothing."""
    short = [TITLES[n] for n, s in result.seen.items() if len(s.prompt.tokens) < 64]
    if not short:
        return "Every prompt has at least 64 tokens, so that uniform attention makes no sink."
    return (
        f"Not to be counted on, because uniform attention alone nears the threshold below 64 "
        f"tokens: {', '.join(short)}."
    )


def _row(title: str, seen: Caught | None) -> tuple[str, ...]:
    if seen is None:
        return (title, "none", "–", "–", "–", "–")
    control = "–" if seen.control is None else _eta(seen.control.colouring)
    return (title, f"{seen.layer}.{seen.head}", *map(_eta, seen.colourings), control)


def _eta(colouring: prompted.Colouring) -> str:
    return f"{colouring.eta2:.2f} / {colouring.null[1]:.2f}"


def _words(prompt: Prompted) -> str:
    seen = prompt.caught
    if seen is None:
        return "The first token is a sink of no head: there is nothing to colour."
    return (
        f"Block {seen.layer}, head {seen.head} has the clearest sinks: "
        f"{prompted.named(prompt.tokens, seen)}. {prompted.reading(seen)}"
    )
