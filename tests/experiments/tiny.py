"""A tiny random Llama with grouped queries, its tokenizer, and texts of random words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<unk>", "<s>", *(f"w{i}" for i in range(60))]
ENGLISH = [*WORDS, "the", "of", "a", "and", "is"]
"""With some that every text has."""


def tiny_llama(folder: Path, words: Sequence[str] = WORDS, room: int = 80, blocks: int = 2) -> None:
    """Write a model of `blocks` blocks, made for `room` tokens, as save_pretrained does."""
    torch.manual_seed(0)
    settings = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(words),
        max_position_embeddings=room,
        bos_token_id=1,
    )
    LlamaForCausalLM(settings).save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")
    fast.save_pretrained(folder)


def random_text(file: Path, seed: int) -> None:
    """Write 2,000 words of the tokenizer's."""
    words = np.random.default_rng(seed).choice(WORDS[2:], 2000)
    file.write_text(" ".join(words))
