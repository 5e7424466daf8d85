"""ctr experiment moment on a tiny model: what is paired, what is held out, what is said of it."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny import random_text, tiny_llama

from bridge.splitting import FullSVD
from experiments.intervals import Interval
from experiments.moment import DEFINITION, Config, Loss, run, sections
from experiments.moment_layers import NearlySVD
from experiments.progress import Progress
from experiments.serial import dumps
from experiments.settings import BadOption, Budget, Reading, Sizes


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    folder = tmp_path_factory.mktemp("moment")
    tiny_llama(folder / "tiny")
    for seed, name in enumerate(("text", "other")):
        random_text(folder / f"{name}.txt", seed)
    return Config(
        Reading(str(folder / "tiny"), text=folder / "text.txt"),
        other=folder / "other.txt",
        methods=(DEFINITION, "oats-moment", "wanda"),
        budget=Budget(iterations=3),
        sizes=Sizes(8, 3, 24, 2, 64),
        errors="layers.1.mlp.*",
    )


@pytest.fixture(scope="module")
def result(config):
    return run(config, Progress())


def test_every_method_reads_both_texts_and_is_paired_with_the_first(result):
    methods = ["dense", DEFINITION, "oats-moment", "wanda"]
    assert [found.method for found in result.losses] == [m for m in methods for _ in range(2)]
    assert len({found.text for found in result.losses}) == 2
    for found in result.losses:
        assert found.above.n == 3
        base = next(f for f in result.losses if f.method == DEFINITION and f.text == found.text)
        assert np.exp(found.above.mean) * base.ppl == pytest.approx(found.ppl)
        assert found.density == 1 if found.method == "dense" else found.density <= 0.5


def test_errors_are_of_the_calibration_tokens_and_of_others(result):
    assert [layer.name.rsplit(".", 1)[1] for layer in result.layers] == [
        "gate_proj", "up_proj", "down_proj",
    ]  # fmt: skip
    for layer in result.layers:
        errors = {e.method: e for e in layer.errors}
        assert errors["oats-moment"].calibration < errors[DEFINITION].calibration
        assert all(0 < e.calibration != e.held_out > 0 for e in layer.errors)


def test_the_sections_say_it_and_the_result_can_be_stored(result):
    (section,) = sections(result)
    assert len(section.text) == 4
    assert all(len(row) == len(t.columns) for t in section.tables for row in t.rows)
    assert "oats-moment" in dumps(result)


def test_the_verdict_carries_its_interval(result):
    losses = [
        Loss(DEFINITION, "t", 0.5, 60.0, Interval(0, 0, 0, 9)),
        Loss("oats-moment", "t", 0.5, 48.0, Interval(-0.2, -0.3, -0.1, 9)),
        Loss("wanda", "t", 0.5, 61.0, Interval(0.02, -0.1, 0.1, 9)),
    ]
    (section,) = sections(dataclasses.replace(result, losses=losses))
    assert "by 18.1% [9.5%, 25.9%]." in section.text[0]
    assert "chance" in section.text[1]


def test_the_carried_subspace_reaches_the_error_of_the_svds(generator):
    target = torch.randn(60, 90, generator=generator) * torch.logspace(-1, 1, 90)

    def error(way) -> float:
        found = way(target, rank=9, keep=30, iterations=20)
        return float((target - found.left @ found.right - found.sparse).norm())

    assert error(NearlySVD()) == pytest.approx(error(FullSVD()), rel=0.003)


@pytest.mark.parametrize("methods", [(), ("wanda", "wanda")])
def test_methods_are_named_once(config, methods):
    with pytest.raises(BadOption, match="each once"):
        run(dataclasses.replace(config, methods=methods), Progress())
