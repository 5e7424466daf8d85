"""Forecasts of many runs."""

from experiments.planning.forecast import Forecast, Kind, Measured, forecast, kind_of

SMALL, LARGE, NEW = Kind("low-rank-figure-2", "smallest"), Kind("demo"), Kind("new")


def test_the_median_of_a_kind_and_no_less_than_the_longest():
    measured = [Measured(SMALL, s) for s in (1.0, 2.0, 30.0)] + [Measured(LARGE, 7.0)]
    assert forecast([SMALL] * 10, measured) == Forecast(20.0, 20.0, 10, 10)
    assert forecast([SMALL] * 10, measured, jobs=4) == Forecast(5.0, 20.0, 10, 10)
    assert forecast([SMALL, LARGE], measured, jobs=4) == Forecast(7.0, 9.0, 2, 2)


def test_what_was_never_measured_is_taken_for_the_rest_and_said():
    measured = [Measured(SMALL, 2.0)]
    assert forecast([SMALL, SMALL, NEW], measured) == Forecast(6.0, 6.0, 2, 3)
    assert forecast([NEW], measured) == Forecast(None, None, 0, 1)
    assert forecast([], measured).seconds is None


def test_a_stored_command_says_its_kind():
    assert kind_of("ctr low-rank-figure-2 smollm2 --preset smallest --seed 3") == SMALL
    assert kind_of("ctr low-rank-figure-2 --preset=smallest") == SMALL
    assert kind_of("ctr demo --out out/demo") == LARGE
    assert kind_of("ctr experiment tags smollm2").experiment == "experiment tags"
    assert kind_of("ctr toy sweep --seeds 3").experiment == "toy sweep"
    assert kind_of("ctr --help").experiment == ""
