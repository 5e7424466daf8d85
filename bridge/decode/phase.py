"""What the tokens of the current call are: a prompt, or one more token a sequence."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from mech.blocks import decoder_blocks


def first_gated(tokens: int, sparse_from: float) -> int:
    """The first token that is gated: ⌊T sparse_from⌋ of T > 1, and always one that comes alone."""
    return 0 if tokens == 1 else int(tokens * sparse_from)


@dataclass
class Phase:
    """Of T tokens a sequence in one call, the first ⌊T · sparse_from⌋ are dense, the rest gated.

    A call with one token a sequence is a step of decoding, and gated whole. sparse_from 1 is a
    dense prefill, 0 gates every token. `dense_tokens` and `sparse_tokens` count what was run.
    """

    sparse_from: float
    step: bool = False
    batch: int = 0
    seq: int = 0
    dense_tokens: int = 0
    sparse_tokens: int = 0

    @property
    def dense(self) -> int:
        """Leading tokens of a sequence that are not gated in this call."""
        return 0 if self.step else first_gated(self.seq, self.sparse_from)

    def begin(self, batch: int, seq: int) -> None:
        """A call with `seq` tokens in each of `batch` sequences."""
        self.batch, self.seq, self.step = batch, seq, seq == 1
        self.dense_tokens += batch * self.dense
        self.sparse_tokens += batch * (seq - self.dense)

    def watching(self, model: nn.Module) -> Any:
        """A hook on the first block, which is given the stream [batch, seq, d_model]."""
        # A method, not a function in here: a copy of the model takes its own phase with it.
        return decoder_blocks(model)[0].register_forward_pre_hook(self._read, with_kwargs=True)

    def _read(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        stream = args[0] if args else kwargs["hidden_states"]
        self.begin(stream.shape[0], stream.shape[1])
