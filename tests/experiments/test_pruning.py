"""What pruning keeps: read alike, paired, resumed; on a tiny model, and on arrays by hand."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from tiny import random_text, tiny_llama

from experiments import pruning, pruning_read
from experiments.probing.pruned_tags import grouped
from experiments.progress import Progress
from experiments.pruning import Amounts, Config, Variant
from experiments.pruning_judge import judged
from experiments.pruning_read import Seen
from experiments.settings import BadOption, Budget, Reading

TINY = Amounts(
    calibration=2, calibration_seq=24, context=48, windows=3, limit_windows=2, sequences=3, seq=64
)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """A random Llama with grouped queries and a text of random words."""
    folder = tmp_path_factory.mktemp("pruning")
    tiny_llama(folder / "tiny")
    random_text(folder / "text.txt", 0)
    return Config(
        Reading(str(folder / "tiny"), text=folder / "text.txt"),
        methods=("magnitude", "wanda", "oats"),
        sparsities=(0.5, 0.7),
        budget=Budget(iterations=2),
        amounts=TINY,
        state=folder / "state",
    )


@pytest.fixture(scope="module")
def result(config):
    return pruning.run(config, Progress())


def test_every_variant_spends_at_most_what_wanda_spends(result):
    dense, *variants = result.judged
    assert dense.variant.method == "dense"
    assert dense.loss.to_dense is not None
    assert (dense.loss.to_dense.low, dense.loss.to_dense.high) == (0, 0)
    assert [(j.variant.method, j.variant.sparsity) for j in variants] == [
        (m, s) for s in (0.5, 0.7) for m in ("magnitude", "wanda", "oats")
    ]
    for sparsity in (0.5, 0.7):
        kept = {
            j.variant.method: j.facts["kept"] for j in variants if j.variant.sparsity == sparsity
        }
        assert kept["magnitude"] == kept["wanda"]
        assert 0 <= kept["wanda"] - kept["oats"] < 130
    for j in variants:
        assert j.loss.windows == 3
        assert j.limit is not None
        assert j.limit.windows == 2
        assert math.isfinite(j.loss.ppl)


def test_a_second_run_reads_what_the_first_has_measured(config, result, monkeypatch):
    def never(*_):
        raise AssertionError("it was measured again")

    monkeypatch.setattr(pruning_read, "_measure", never)
    again = pruning.run(config, Progress())
    assert repr(again.judged) == repr(result.judged)
    more = replace(config, methods=("magnitude",), sparsities=(0.7,))
    assert pruning.run(more, Progress()).judged[1].facts == result.judged[4].facts
    for other in (
        replace(config, measure="bits"),
        replace(config, budget=Budget(iterations=3)),
        replace(config, amounts=replace(TINY, windows=4)),
        replace(config, amounts=replace(TINY, calibration=3)),
    ):
        with pytest.raises(AssertionError, match="again"):
            pruning.run(other, Progress())


def test_the_page_has_every_row_and_says_who_wins(result):
    (section,) = pruning.sections(result)
    assert len(section.text) == 2
    losses, sinks, tags, weights = section.tables
    assert len(losses.rows) == len(sinks.rows) == len(tags.rows) == 7
    assert len(weights.rows) == 6
    best = min((j for j in result.judged if j.variant.sparsity == 0.5), key=lambda j: j.loss.ppl)
    assert f"At 50%, {best.variant.name} has the lowest perplexity" in section.text[0]
    assert "windows of 48 tokens every 47" in losses.caption
    (picture,) = section.pictures
    assert isinstance(picture.figure, Figure)
    assert len(picture.figure.axes) == 4


def test_allocations_spend_one_total_and_are_paired_with_the_uniform_one(config):
    ways = ("uniform", "owl", "curves", "sinks")
    other = replace(config, methods=("wanda",), sparsities=(0.5,), allocations=ways)
    other = replace(other, amounts=replace(TINY, calibration_seq=64))
    _, *variants = pruning.run(other, Progress()).judged
    assert [j.variant.allocation for j in variants] == list(ways)
    assert [j.beside for j in variants] == ["", "wanda", "wanda", "wanda"]
    kept = [j.facts["kept"] for j in variants]
    # Wanda keeps whole rows: the last linear's remainder is the only difference.
    assert max(kept) - min(kept) < 48
    assert len({j.facts["delta_w"] for j in variants}) == 4


def test_losses_and_sinks_are_paired_with_dense_and_with_wanda():
    generator = np.random.default_rng(0)
    dense = generator.random((2, 6, 3, 80)) < 0.1
    gone = dense.copy()
    gone[:, ::2] = False

    def seen(shift, sinks, ari):
        tags = np.full((1, 6, 4), np.nan)
        tags[0, :4] = (0.5, 0.2, ari, 0.1)
        return Seen(np.arange(6) + shift, np.array([1.0 + shift]), sinks, tags, {})

    found = judged(
        {
            Variant("dense", 0.0): seen(0.0, dense, 0.9),
            Variant("wanda", 0.5): seen(0.5, dense, 0.6),
            Variant("oats", 0.5): seen(0.25, gone, 0.8),
        }
    )
    _, wanda, oats = found
    assert wanda.loss.beside is None
    assert oats.loss.beside is not None
    assert oats.loss.beside.mean == -0.25
    assert oats.loss.to_dense is not None
    assert oats.loss.to_dense[:3] == (0.25, 0.25, 0.25)
    assert oats.limit is not None
    assert oats.limit.to_dense is None
    assert oats.later_beside is not None
    assert oats.later_beside.high < 0
    assert oats.sinks.later_precision is not None
    assert oats.sinks.later_precision.mean == 1
    assert oats.tags.to_dense is not None
    assert oats.tags.to_dense.n == 4
    np.testing.assert_allclose(oats.tags.to_dense.mean, -0.1)
    assert oats.tags.ari is not None
    np.testing.assert_allclose(oats.tags.ari.mean, 0.7)


def test_tags_are_seen_where_they_are_written_and_not_elsewhere():
    generator = np.random.default_rng(0)
    labels = np.stack([np.repeat([0, 1, -1], 20), np.full(60, -1), np.repeat([0, 1, -1], 20)])
    z = generator.normal(size=(3, 60, 5))
    z[0, :20] += 9
    z[2] = 1.0
    written, without, constant = grouped(z, labels)
    assert written[0] > 0.9
    assert written[2] == 1
    assert written[3] < 0.9
    assert np.isnan(without).all()
    assert (constant == 0).all()
    (noise,) = grouped(generator.normal(size=(1, 60, 5)), labels[:1])
    assert noise[2] < 0.3


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"methods": ()}, "--methods"),
        ({"methods": ("wanda", "wanda")}, "--methods"),
        ({"sparsities": (1.0,)}, "--sparsities"),
        ({"amounts": Amounts(windows=1)}, "--windows"),
        ({"amounts": Amounts(seq=32)}, "--seq"),
    ],
)
def test_what_measures_nothing_is_refused(options, what):
    with pytest.raises(BadOption, match=what):
        pruning.check(Config(state=Path("nowhere"), **options))
