"""What the experiments on papers share: a model, and windows to calibrate, evaluate and probe."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.settings import Reading, within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from jaxtyping import Int
    from torch import Tensor

    from mech.load import Loaded


@dataclass(frozen=True)
class Amounts:
    """How much of the model and of the text: more gives narrower intervals and takes longer."""

    calibration: int = 16
    """Calibration sequences."""
    calibration_seq: int = 256
    """Tokens of a calibration sequence."""
    windows: int = 12
    """Evaluation windows; intervals of losses are over windows."""
    context: int = 512
    """Tokens of an evaluation window."""
    sequences: int = 16
    """Sequences to look for sinks on; intervals of sinks are over sequences."""
    seq: int = 128
    """Tokens of such a sequence, at least 64."""
    blocks: int = 0
    """Only the model's first blocks: for a quick look, at what is then another model. 0: all."""


DEMO, LAPTOP = Reading(), Amounts()
SMALLEST = Amounts(
    calibration=2, calibration_seq=64, windows=2, context=64, sequences=3, seq=64, blocks=5
)
PAPER = Amounts(
    calibration=128, calibration_seq=2048, windows=128, context=2048, sequences=170, seq=128
)


class Work(NamedTuple):
    """A loaded model and what it reads; `bos_id` stands first in every window where it is set."""

    loaded: "Loaded"
    inputs: Inputs
    calibration: "Int[Tensor, 'windows seq']"
    windows: "Int[Tensor, 'windows seq']"
    sequences: "Int[Tensor, 'sequences seq']"
    bos_id: int | None


def prepared(
    reading: Reading,
    amounts: Amounts,
    progress: Progress,
    calibration_text: Path | None = None,
) -> Work:
    """Load, cut off the blocks that are not asked for, and cut the windows.

    Calibration is read from the first half of `calibration_text`, or of the text; evaluation and
    sink windows from the text's second half.

    Raises:
        BadOption: amounts that measure nothing. BadInput, UnreadableText: model or text.
    """
    from experiments import measure
    from experiments.text import read_text
    from mech import tokens

    check(amounts)
    loaded = measure.loaded_model(reading, progress)
    shorten(loaded.model, amounts.blocks)
    most = measure.longest(loaded.model)
    within("context", amounts.context, 3, most)
    within("calibration-seq", amounts.calibration_seq, 2, most)

    def cut(half, seq, count):
        other = calibration_text if half == "calibration" else None
        source = read_text(other or reading.text, half)
        # Tokenizing a whole half costs seconds; English has more than two characters a token.
        enough = source.text[: 16 * seq * count]
        encoded = tokens.encode(loaded.tokenizer, enough, bos=reading.bos)
        return tokens.windows(encoded, seq, count), encoded, source

    calibration, *_ = cut("calibration", amounts.calibration_seq, amounts.calibration)
    windows, encoded, text = cut("evaluation", amounts.context, amounts.windows)
    sequences, *_ = cut("evaluation", amounts.seq, amounts.sequences)
    progress.say(f"BOS: {encoded.decision}; first ids {windows[0, :4].tolist()}")
    return Work(
        loaded=loaded,
        inputs=measure.described(loaded, reading, encoded, text),
        calibration=calibration,
        windows=windows,
        sequences=sequences,
        bos_id=int(encoded.ids[0]) if encoded.bos else None,
    )


def check(amounts: Amounts) -> None:
    """Raises BadOption where an amount measures nothing."""
    within("calibration", amounts.calibration, 1)
    within("calibration-seq", amounts.calibration_seq, 2)
    within("windows", amounts.windows, 2)  # one unit has no interval
    within("context", amounts.context, 3)
    within("sequences", amounts.sequences, 2)
    within("seq", amounts.seq, 64)
    within("blocks", amounts.blocks, 0)


def shorten(model, blocks: int) -> None:
    """Leave the first `blocks` decoder blocks, in place; 0 leaves all.

    Raises:
        BadOption: the model has fewer.
    """
    from mech.blocks import decoder_blocks

    if blocks:
        found = decoder_blocks(model)
        within("blocks", blocks, 1, len(found))
        del found[blocks:]
        text = model.config.get_text_config(decoder=True)
        text.num_hidden_layers = blocks
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:blocks]
