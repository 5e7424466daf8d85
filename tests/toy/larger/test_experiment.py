"""The smallest `ctr toy larger`: every table is made, of a seed that learned nothing."""

import numpy as np
import pytest

from experiments.larger_sections import wilson
from experiments.progress import Progress
from experiments.serial import dumps
from experiments.settings import BadOption
from experiments.toy_larger import Config, check, run, sections


def test_the_smallest_run_answers_every_question():
    config = Config(
        d_model=8, norm=False, ablations=False, seeds=1, steps=20, batch=3, sequences=64
    )
    result = run(config, Progress())
    assert [variant.name for variant in result.variants] == ["as given"]
    assert result.variants[0].dossiers[0].verdict.route == "none"
    assert result.example.pattern.shape == (2, 2, 32, 32)
    assert '"route": "none"' in dumps(result)
    made = sections(result)
    assert len(made) == 5
    assert made[0].tables[0].rows[0][2] == "0/1 [0.00, 0.79]"
    assert "nothing to break" in made[1].text[0]


def test_wilson():
    """The ends solve (p - q)^2 = z^2 q (1 - q) / n."""
    for successes, n in ((3, 8), (8, 8), (0, 5), (41, 64)):
        for end in wilson(successes, n):
            distance = (successes / n - end) ** 2 * n
            assert distance == pytest.approx(1.959964**2 * end * (1 - end), abs=1e-6)
    assert np.isclose(wilson(0, 4)[0], 0)


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"steps": 30}, "--steps 30"),
        ({"layers": 1}, "--layers 1"),
        ({"seeds": 0}, "--seeds 0"),
        ({"heads": 9}, "--heads 9"),
    ],
)
def test_what_trains_nothing_is_refused(wrong, option):
    with pytest.raises(BadOption, match=option):
        check(Config(**wrong))
