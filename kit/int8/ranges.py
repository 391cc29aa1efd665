"""Which part of a tensor's values INT8 shall resolve: ``(low, high)`` chosen from its histogram, the model not re-run.

Clipping a few far values lets the 256 levels lie closer together; clipping too many loses what they said. The methods
differ in how they weigh the two. Every range holds zero, because padding must be exact.

Histograms answer to the width of a bin. Where an outlier has stretched the grid until the other values fill few bins
(``Histogram.occupied`` below 64), percentile and entropy cannot cut closer than a bin; mse still weighs both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kit.collecting.histogram import Histogram
from kit.errors import unknown

LEVELS = 256
# How much of a side is kept: finely near all of it, then by factors, for a tensor with one far outlier.
_ONE_SIDE = np.concatenate([np.linspace(1, 0.5, 17), 0.5 * 2.0 ** -(np.arange(1, 29) / 4)])
_TWO_SIDES = np.concatenate([np.linspace(1, 0.5, 9), 0.5 * 2.0 ** -(np.arange(1, 13) / 2)])
_ROWS = 32  # candidates judged at a time: the table of candidates by bins stays small

Range = tuple[float, float]


def choose(histogram: Histogram, method: str, *, percentile: float = 99.99) -> Range:
    """The range that a method chooses; (0, 0) for a tensor that is empty or zero everywhere.

    Args:
        histogram: of the tensor.
        method: a key of ``METHODS``.
        percentile: how many percent of the values stay inside (method ``percentile``).

    Raises:
        BadInput: unknown method.
    """
    if method not in METHODS:
        raise unknown("range method", method, METHODS)
    if not histogram.elements:
        return 0.0, 0.0
    low, high = METHODS[method](histogram, percentile)
    return min(float(low), 0.0), max(float(high), 0.0)


def minmax(histogram: Histogram, percentile: float = 100.0) -> Range:
    """Everything: nothing is clipped."""
    return min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)


def percentile(histogram: Histogram, percentile: float = 99.99) -> Range:
    """Leave out the same share at both ends, to the precision of a bin."""
    tail = histogram.elements * (100 - percentile) / 200
    below, edges = np.cumsum(histogram.counts), histogram.edges()
    first = int(np.searchsorted(below, tail, side="right"))
    last = int(np.searchsorted(below, histogram.elements - tail, side="left"))
    return (max(float(edges[min(first, len(below) - 1)]), histogram.minimum),
            min(float(edges[min(last, len(below) - 1) + 1]), histogram.maximum))


def mse(histogram: Histogram, percentile: float = 100.0) -> Range:
    """Least mean squared error between the values and what INT8 makes of them."""
    lows, highs = candidates(histogram)
    best = int(np.argmin(squared_errors(histogram, lows, highs)))
    return float(lows[best]), float(highs[best])


def entropy(histogram: Histogram, percentile: float = 100.0) -> Range:
    """Least Kullback-Leibler divergence between the clipped distribution and its 256-level form.

    The lower and the upper end are drawn in together, see ``entropy_shares``. The bin that holds zero is left out, for
    what ReLU has cut off would outweigh all else.

    Source: Migacz 2017, "8-bit inference with TensorRT", with 256 levels in place of 128 and for both signs.
    """
    low, high = minmax(histogram)
    shares = entropy_shares(histogram)
    share = shares[int(np.argmin([_divergence(histogram, share * low, share * high) for share in shares]))]
    return float(share * low), float(share * high)


def entropy_shares(histogram: Histogram) -> np.ndarray:
    """How much of the min-max range ``entropy`` tries, widest first; always at least two, of which the first is 1.

    Ranges so narrow that a level would hold fewer than two bins are not tried: on those the divergence says nothing.
    """
    low, high = minmax(histogram)
    bins = math.ldexp(high, -histogram.exponent) - math.ldexp(low, -histogram.exponent)
    enough = _ONE_SIDE * bins >= 2 * LEVELS
    enough[:2] = True
    return _ONE_SIDE[enough]


def candidates(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """The lows and highs that ``mse`` tries; the first pair is min-max."""
    low, high = minmax(histogram)
    if low == 0 or high == 0:
        return _ONE_SIDE * low, _ONE_SIDE * high
    lows, highs = np.meshgrid(_TWO_SIDES * low, _TWO_SIDES * high, indexing="ij")
    return lows.ravel(), highs.ravel()


def squared_errors(histogram: Histogram, lows: np.ndarray, highs: np.ndarray, levels: int = LEVELS) -> np.ndarray:
    """Mean squared error of rounding and clipping to each range, float64, one a pair.

    Every value counts as the middle of its bin; the bins are at least eight times finer than the levels unless an
    outlier has stretched the grid.
    """
    return _errors(histogram, lows, highs, levels).sum(0)


class ErrorCurve(NamedTuple):
    """What clipping costs and gains, from the narrowest clip to none: float64 [points] each.

    Attributes:
        clips: magnitude of the farther end of the range; both ends are drawn in by the same share.
        errors: mean squared error, in squares of the tensor's unit: the sum of the next two.
        clipping: part of the values that lie outside the range.
        rounding: part of those inside.
    """

    clips: np.ndarray
    errors: np.ndarray
    clipping: np.ndarray
    rounding: np.ndarray


def error_curve(histogram: Histogram, points: int = 60, levels: int = LEVELS) -> ErrorCurve:
    """The error against the clip, from 1/256 of the min-max range to all of it in even factors.

    Args:
        histogram: of the tensor; all-zero or empty ones give zeros.
        points: how many clips, at least two.
        levels: of the integers.
    """
    low, high = minmax(histogram) if histogram.elements else (0.0, 0.0)
    shares = np.geomspace(1 / 256, 1, points)
    clipping, rounding = _errors(histogram, shares * low, shares * high, levels)
    return ErrorCurve(shares * max(abs(low), abs(high)), clipping + rounding, clipping, rounding)


def _errors(histogram: Histogram, lows: np.ndarray, highs: np.ndarray, levels: int) -> np.ndarray:
    """Mean squared error of the values outside and inside each range, float64 [2, ranges]."""
    used = histogram.counts > 0
    errors = np.zeros((2, len(lows)))
    largest = max(float(np.abs(lows).max()), float(np.abs(highs).max()))
    if not used.any() or not largest:
        return errors
    # The work is done in float32, which a power of two brings every tensor into: denormals and 1e300 alike.
    exponent = int(np.frexp(max(largest, abs(histogram.minimum), abs(histogram.maximum)))[1])
    values = np.ldexp(histogram.centres()[used], -exponent).astype(np.float32)
    shares = (histogram.counts[used] / histogram.elements).astype(np.float32)
    for at in range(0, len(lows), _ROWS):
        low, high = (np.ldexp(side[at : at + _ROWS], -exponent).astype(np.float32)[:, None] for side in (lows, highs))
        scale = (high - low) / np.float32(levels - 1)
        scale[scale == 0] = 1
        zero = np.rint(-low / scale)
        level = np.rint(values / scale)
        outside = (level < -zero) | (level > levels - 1 - zero)
        np.clip(level, -zero, levels - 1 - zero, out=level)
        level *= scale
        level -= values
        np.square(level, out=level)
        errors[0, at : at + _ROWS] = np.where(outside, level, 0) @ shares
        level[outside] = 0
        errors[1, at : at + _ROWS] = level @ shares
    return np.ldexp(errors, 2 * exponent)


def _divergence(histogram: Histogram, low: float, high: float) -> float:
    centres, counts = histogram.centres(), histogram.counts.copy()
    if 0 <= -histogram.start < len(counts):
        counts[-histogram.start] = 0
    inside = (centres >= low) & (centres <= high)
    own = counts[inside].astype(np.float64)
    if not own.any():
        return np.inf
    clipped = own.copy()
    clipped[0] += counts[centres < low].sum()
    clipped[-1] += counts[centres > high].sum()
    level = np.minimum(((centres[inside] - low) / (high - low) * LEVELS).astype(np.int64), LEVELS - 1)
    filled = (clipped > 0).astype(np.float64)
    share = np.bincount(level, own, LEVELS) / np.maximum(np.bincount(level, filled, LEVELS), 1)
    coarse = share[level] * filled
    p, q = clipped / clipped.sum(), coarse / coarse.sum()
    at = p > 0
    return float(np.sum(p[at] * np.log(p[at] / np.maximum(q[at], 1e-12))))


METHODS: dict[str, Callable[[Histogram, float], Range]] = {
    "minmax": minmax, "percentile": percentile, "mse": mse, "entropy": entropy,
}

#: What ``method="auto"`` tries: method and percentile.
CANDIDATES = (("minmax", 100.0), ("percentile", 99.9), ("percentile", 99.99), ("percentile", 99.999), ("mse", 100.0),
              ("entropy", 100.0))
