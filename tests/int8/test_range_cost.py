"""What a range costs a tensor, from its histogram."""

import numpy as np
import pytest

from kit.collecting.histogram import Histogram
from kit.int8.range_cost import mean_square, tensor_sqnr


def histogram(*values):
    made = Histogram()
    made.add(np.array(values, np.float64))
    return made


def test_power_is_the_mean_of_the_squares():
    values = np.random.default_rng(0).normal(size=10_000)
    assert mean_square(histogram(*values)) == pytest.approx(np.square(values).mean(), rel=1e-3)  # bins have a width
    assert mean_square(histogram()) == 0


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e30, 1e38])
def test_the_ratio_does_not_depend_on_the_unit(scale):
    values = np.random.default_rng(1).normal(size=4000)
    here = tensor_sqnr(histogram(*(values * scale)), (-3 * scale, 3 * scale))
    assert here == pytest.approx(tensor_sqnr(histogram(*values), (-3.0, 3.0)), abs=0.1)


def test_an_even_spread_over_the_range_has_six_decibels_a_bit():
    values = np.linspace(-1, 1, 100_001)
    assert tensor_sqnr(histogram(*values), (-1.0, 1.0)) == pytest.approx(6.02 * 8, abs=0.3)


def test_nothing_is_lost_of_nothing():
    assert tensor_sqnr(histogram(), (0.0, 0.0)) == 200.0
    assert tensor_sqnr(histogram(0.0, 0.0), (0.0, 0.0)) == 200.0
