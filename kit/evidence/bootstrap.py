"""Intervals by resampling: what would the figure have been with other samples of the same kind?

One idea: a weight for each sample (how often it was drawn) turns resampling into a matrix product. The same weights
serve every stage, so differences between stages are paired: what all stages find hard cancels out.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13 (percentile interval).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

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


def totals(tallies: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums of additive tallies over resampled samples.

    Args:
        tallies: float [samples, counts], one row a sample.

    Returns:
        float64 [resamples, counts]. Called with the same seed and number of samples, rows are paired.
    """
    tallies = np.asarray(tallies, np.float64)
    return np.concatenate([rows @ tallies for rows in weights(len(tallies), resamples, seed)])


def scores(tallies: np.ndarray, score: Callable[[tuple[float, ...]], float], resamples: int, seed: int) -> np.ndarray:
    """A metric made from summed tallies, once a resample: float64 [resamples]."""
    rows, back = np.unique(totals(tallies, resamples, seed), axis=0, return_inverse=True)
    return np.array([score(tuple(row)) for row in rows.tolist()], np.float64)[back.reshape(-1)]


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
