"""What a range costs a tensor, told from its histogram alone."""

from __future__ import annotations

import math

import numpy as np

from kit.collecting.histogram import Histogram
from kit.int8.noise import decibels
from kit.int8.ranges import Range, squared_errors


def mean_square(histogram: Histogram) -> float:
    """Power of the values: the mean of their squares; 0 where there are none."""
    if not histogram.elements:
        return 0.0
    # Scaled by a power of two, so that neither the squares of denormals nor those of 1e300 are lost.
    exponent = math.frexp(max(abs(histogram.minimum), abs(histogram.maximum)))[1]
    squares = np.square(np.ldexp(histogram.centres(), -exponent))
    return math.ldexp(float(np.dot(histogram.counts, squares)) / histogram.elements, 2 * exponent)


def tensor_sqnr(histogram: Histogram, span: Range) -> float:
    """The tensor's own values against what INT8 makes of them in the range ``span``, dB; 200 where nothing is lost."""
    power = mean_square(histogram)
    error = float(squared_errors(histogram, np.array([span[0]]), np.array([span[1]]))[0])
    return decibels(error / power) if power else 200.0
