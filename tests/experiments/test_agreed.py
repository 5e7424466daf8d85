"""Ranks that read another model, text or command than rank 0 are refused, on every rank."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments.compress import Config
from experiments.ranks import agreed
from experiments.settings import Reading
from mech.errors import BadInput

MATERIAL = {name: torch.arange(6).reshape(2, 3) for name in ("calibration", "evaluation")}
MATERIAL["sequences"] = torch.zeros(1, 4, dtype=torch.int64)


class Two:
    """Two ranks, the first of which said `before`."""

    def __init__(self, before: Any) -> None:
        self.before = before

    def each(self, what: Any) -> list[Any]:
        self.said = what
        return [self.before or what, what]


def asked(before: Any, config: Config, sha256: str = "0", theta: str = "1", **text: Any) -> Any:
    ranks: Any = Two(before)
    model = SimpleNamespace(config=SimpleNamespace(to_json_string=lambda: theta))
    loaded: Any = SimpleNamespace(sha256=sha256, model=model)
    material: Any = SimpleNamespace(**(MATERIAL | text))
    agreed.check(ranks, config, loaded, material)
    return ranks.said


def test_ranks_that_read_something_else_are_refused():
    config = Config(Reading("a/model"))
    first = asked(None, config)
    elsewhere = replace(config, reading=Reading("b/model", text=Path("there")))
    asked(first, elsewhere)  # the same contents at another place
    others: list[tuple[dict[str, Any], str]] = [
        ({"sha256": "1"}, "model"),
        ({"theta": "2"}, "model's config.json"),
        ({"calibration": MATERIAL["calibration"] + 1}, "text"),
    ]
    for other, what in others:
        with pytest.raises(BadInput, match=f"rank 1 has another {what} than rank 0"):
            asked(first, config, **other)
    with pytest.raises(BadInput, match="another command"):
        asked(first, replace(config, method="wanda"))
