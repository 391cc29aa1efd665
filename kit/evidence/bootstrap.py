"""Intervals by resampling: what would the figure have been with other samples of the same kind?

One idea: a weight for each sample (how often it was drawn) turns resampling into arithmetic on whole arrays. The same
weights serve every stage, so differences between stages are paired: what all stages find hard cancels out.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13 (percentile interval).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kit.evidence.judging import Judged

_BLOCK = 4_000_000  # weights drawn at once: 32 MB


def weights(samples: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each sample is drawn, block by block.

    Args:
        samples: how many there are; each resample draws as many, with replacement.
        resamples: how many rows all blocks have together.
        seed: same seed, same rows.

    Yields:
        Arrays int64 [rows, samples]; every row sums to ``samples``.
    """
    random = np.random.default_rng(seed)
    rows = max(1, _BLOCK // samples)
    for start in range(0, resamples, rows):
        yield random.multinomial(samples, np.full(samples, 1 / samples), size=min(rows, resamples - start))


def scores(records: Judged, samples: int, resamples: int, seed: int) -> np.ndarray:
    """Every metric of records, once a resample.

    Args:
        records: of one stage.
        samples: how many there are.

    Returns:
        float64 [resamples, metrics]. Called with the same seed and number of samples, rows are paired.
    """
    return np.concatenate([records.resampled(rows) for rows in weights(samples, resamples, seed)])


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The percentile interval that holds ``confidence`` (0 to 1) of the values; NaNs are left out."""
    kept = np.asarray(values)[~np.isnan(values)]
    if not kept.size:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(kept, [tail, 1 - tail])
    return float(low), float(high)


def median_ratios(left: np.ndarray, right: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """``median(left) / median(right)`` over resampled rounds, the same rounds on both sides.

    Whole rounds are drawn, not single runs: runs of one turn share the machine's mood, and drawing them one by one
    would make the interval too narrow.

    Args:
        left: [rounds, runs] times.
        right: [rounds, runs] times of the same rounds.

    Returns:
        float64 [resamples].
    """
    random = np.random.default_rng(seed)
    rounds, found = len(left), []
    rows = max(1, _BLOCK // max(left.size, right.size))
    for start in range(0, resamples, rows):
        drawn = random.integers(0, rounds, (min(rows, resamples - start), rounds))
        over = [np.median(side[drawn].reshape(len(drawn), -1), axis=1) for side in (left, right)]
        found.append(over[0] / over[1])
    return np.concatenate(found)
