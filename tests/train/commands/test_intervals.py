"""Confidence intervals are Student's, however many seeds there are."""

import numpy as np
import pytest
from scipy import stats

from train.commands.intervals import mean_and_interval, student_point


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_points_are_those_of_scipy(confidence):
    degrees = np.arange(1, 300)
    expected = stats.t.ppf((1 + confidence) / 2, degrees)
    found = [student_point(int(each), confidence) for each in degrees]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("count", [2, 3, 10, 11, 12, 13, 30, 50, 120, 200])
def test_intervals_are_those_of_scipy(count):
    values = np.random.default_rng(count).normal(3, 2, count)
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    mean, interval = mean_and_interval(values)
    assert interval is not None
    np.testing.assert_allclose([mean - interval, mean + interval], [low, high])


def test_one_value_has_no_interval():
    assert mean_and_interval([0.5]) == (0.5, None)


@pytest.mark.parametrize(("degrees", "confidence"), [(0, 0.95), (3, 1.0), (3, 0.0)])
def test_a_point_that_does_not_exist_is_refused(degrees, confidence):
    with pytest.raises(ValueError, match=r"between 0 and 1; got"):
        student_point(degrees, confidence)
