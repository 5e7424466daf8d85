"""The two commands about many seeds: small runs, their tables, and what they refuse."""

import io
import json
from typing import Any

import numpy as np
import pytest

from experiments import serial, torch_averager, toy_speed, toy_sweep
from experiments.progress import Progress
from experiments.settings import BadOption
from toy import transformer
from toy.train import drawn


def test_a_small_sweep_end_to_end(tmp_path):
    """Two starts; tables, picture and JSON, and the same once more from the state."""
    config = toy_sweep.Config(
        initialisations=("default-init", "tagged"), optimizers=("adam",), data=("gaussian",),
        seeds=5, steps=6, checkpoints=3, batch=3, sequences=17, state=tmp_path / "state",
    )  # fmt: skip
    lines = io.StringIO()
    result = toy_sweep.run(config, Progress(lines))
    assert "state in" in lines.getvalue()
    assert [row.found.n for row in result.rows] == [5, 5]
    assert sum(rate.n for rate in result.atlas["tagged"]) == 5
    first, second = toy_sweep.sections(result)
    assert "of 10 seeds found the mechanism" in first.text[0]
    assert [row[0] for row in first.tables[0].rows] == ["default-init", "tagged"]
    assert len(second.pictures) == 1
    again = toy_sweep.run(config, Progress(io.StringIO()))
    assert serial.dumps(again) == serial.dumps(result)
    assert json.loads(serial.dumps(result))["rows"][0]["cell"]["optimizer"] == "adam"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seeds": 0}, "--seeds 0"),
        ({"steps": 27}, "--steps 27: give a multiple"),
        ({"optimizers": ()}, "--optimizers"),
        ({"data": ("uniform", "uniform")}, "--data uniform uniform"),
        ({"save_every": float("nan")}, "--save-every nan"),
        ({"lanes": 0}, "--lanes 0"),
    ],
)
def test_a_sweep_of_nothing_is_refused(changed, named):
    with pytest.raises(BadOption, match=named):
        toy_sweep.check(toy_sweep.Config(**changed))


def test_state_folders_of_two_plans_differ():
    changes: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"steps": 4000}, {"s_tag": 5.0}, {"lanes": 64}
    ]  # fmt: skip
    names = {toy_sweep._name(toy_sweep._plan(toy_sweep.Config(**options))) for options in changes}
    assert len(names) == 5


def test_the_torch_loop_is_the_same_model():
    """Output of the loop's model and of the flax one, float32, at the draw of default-init."""
    from dataclasses import replace

    from toy.recipe import PRESETS
    from toy.speed import minibatch

    recipe = replace(PRESETS["default-init"], seeds=2, batch=9, longest=19)
    batch = minibatch(recipe, 3)
    weights = transformer.Weights(*(np.asarray(w)[1] for w in drawn(recipe)))
    theirs, _ = transformer.apply(weights, batch.x, batch.t, batch.last)
    tensors = torch_averager.minibatch(*(np.asarray(field) for field in batch))
    one = torch_averager.tensors(weights._asdict())
    ours = torch_averager.output(one, tensors).detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "option"),
    [(toy_speed.Config(seeds=(1, 0)), "seeds"), (toy_speed.Config(growth=(1, 0)), "growth")],
)
def test_a_race_names_the_numbers_of_seeds_that_cannot_be(config, option):
    with pytest.raises(BadOption, match=f"--{option} 0: give a number from 1 to 4096"):
        toy_speed.check(config)


def test_a_small_race():
    config = toy_speed.Config(
        seeds=(2,), growth=(), steps=2, repeats=2, most_literal=1, most_torch=2, batch=5
    )
    result = toy_speed.run(config, Progress(io.StringIO()))
    assert {t.path: t.timed for t in result.timings} == {"reduced": 2, "literal": 1, "torch": 2}
    assert max(result.apart.values()) < toy_speed.AGREE
    assert [seeds for seeds, _ in result.linear] == [1, 2]
    (section,) = toy_speed.sections(result)
    assert [row[1] for row in section.tables[0].rows] == ["reduced", "literal", "torch"]
    serial.dumps(result)
