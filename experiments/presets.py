"""Presets: one experiment at three sizes, the same code with another Config."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from experiments.settings import BadOption

Preset = Literal["smallest", "laptop", "paper"]
"""smallest: runs in seconds and shows that it runs; its numbers mean nothing. laptop: the demo
model on two cores, at most half an hour. paper: the paper's own models, sizes and seeds; needs a
GPU and a hub."""
DEFAULT: Preset = "laptop"


def chosen(name: str, presets: Mapping[str, Any], rest: Sequence[str]) -> tuple[Any, list[str]]:
    """The Config that --preset names, and the options without it; other options change it.

    Raises:
        BadOption: no such preset, or none given after --preset.
    """
    left, preset = [], DEFAULT
    words = iter(rest)
    for word in words:
        if word == "--preset" or word.startswith("--preset="):
            preset = word.partition("=")[2] if "=" in word else next(words, "")
            if preset not in get_args(Preset):
                raise BadOption(f"--preset {preset}: give one of {', '.join(get_args(Preset))}")
        else:
            left.append(word)
    if preset not in presets:
        raise BadOption(f"--preset {preset}: {name} has {', '.join(presets)}")
    return presets[preset], left
