"""Which part of a tensor's values INT8 shall resolve: ``(low, high)`` chosen from its histogram, the model not re-run.

Clipping a few far values lets the 256 levels lie closer together; clipping too many loses what they said. The methods
differ in how they weigh the two. Every range holds zero, because padding must be exact.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kit.errors import unknown
from kit.int8.histogram import Histogram

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

    The lower and the upper end are drawn in together. Ranges so narrow that a level would hold fewer than two bins
    are not tried: on those the divergence says nothing. The bin that holds zero is left out, for what ReLU has cut off
    would outweigh all else. Where the grid is too coarse for 256 levels (an outlier),
    fewer are used, so that there are always at least two candidates as long as there are eight bins.
    """
    low, high = minmax(histogram)
    if low == high:
        return low, high
    bins = (high - low) / histogram.width
    levels = min(LEVELS, int(bins) // 4)
    if levels < 2:
        return low, high
    kept = [share for share in _ONE_SIDE if share * bins >= 2 * levels]
    divergences = [_divergence(histogram, share * low, share * high, levels) for share in kept]
    share = kept[int(np.argmin(divergences))]
    return share * low, share * high


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
    used = histogram.counts > 0
    values, counts = histogram.centres()[used].astype(np.float32), histogram.counts[used].astype(np.float32)
    counts = counts / np.float32(histogram.elements)
    errors = np.empty(len(lows))
    for at in range(0, len(lows), _ROWS):
        low, high = (np.float32(side[at : at + _ROWS])[:, None] for side in (lows, highs))
        scale = (high - low) / np.float32(levels - 1)
        scale[scale == 0] = 1
        zero = np.rint(-low / scale)
        level = np.rint(values / scale)
        np.clip(level, -zero, levels - 1 - zero, out=level)
        level *= scale
        level -= values
        np.square(level, out=level)
        errors[at : at + _ROWS] = level @ counts
    return errors


def _divergence(histogram: Histogram, low: float, high: float, levels: int) -> float:
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
    level = np.minimum(((centres[inside] - low) / (high - low) * levels).astype(np.int64), levels - 1)
    filled = (clipped > 0).astype(np.float64)
    share = np.bincount(level, own, levels) / np.maximum(np.bincount(level, filled, levels), 1)
    coarse = share[level] * filled
    p, q = clipped / clipped.sum(), coarse / coarse.sum()
    at = p > 0
    return float(np.sum(p[at] * np.log(p[at] / np.maximum(q[at], 1e-12))))


METHODS: dict[str, Callable[[Histogram, float], Range]] = {
    "minmax": minmax, "percentile": percentile, "mse": mse, "entropy": entropy,
}
