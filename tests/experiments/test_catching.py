"""A prompt's tokens are shown as a reader would write them, whatever the tokenizer."""

import pytest

from experiments.catching import shown
from mech.load import load


@pytest.mark.model
def test_bytes_are_decoded():
    """SmolLM2's tokenizer works on bytes: a space is Ġ to it, and é is Ã©."""
    tokenizer = load("smollm2").tokenizer
    ids = tokenizer("The café is open.\n").input_ids
    words = shown(tokenizer, ids)
    assert len(words) == len(ids)
    assert "".join(words) == "The café is open.\n"
    assert " is" in words
