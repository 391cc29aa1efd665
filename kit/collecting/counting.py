"""The arithmetic of calibration that leaves no trace of the order of work: extremes, exact sums, bin counts.

Data are float32 seen as rows of neighbouring values, each row of one channel. All that is kept is integer:

- extremes, as the int32 whose order is that of the floats (``keys``): integer minima vectorise, and NaN and infinity
  lie outside the finite ones;
- sums, as a whole number of 2**-149 (the smallest float32), spread over ``SLOTS`` int64 digits of 16 bits, so that
  nothing is ever rounded (a superaccumulator, after Kulisch: https://doi.org/10.1515/9783110301793).

The quick loops stand in ``kit.collecting.compiled``. Without numba, or with the environment variable KIT_NUMBA=0, the
numpy functions here and ``Histogram`` give the same integers, slower.
"""

from __future__ import annotations

import functools
import os
import threading
from typing import Any

import numpy as np

SLOTS = 24  # 2**(128 + 149) units, counted 2**64 times, need 341 bits and a sign
DIGIT = 16  # bits of a slot; the other bits hold what is carried later
BLOCK = 4096  # values worked on at a time: they stay in the processor's cache
LOWEST, HIGHEST = -0x7F800000, 0x7F7FFFFF  # keys of the smallest and the largest finite float32
NO_LOW, NO_HIGH = 0x7FFFFFFF, -0x80000000  # extremes of nothing
#: Why ``compiled.count`` came back: all is counted, a value lies outside the histogram, or one is not finite.
DONE, OUTSIDE, NOT_FINITE = 0, 1, 2
_LOADING = threading.Lock()


def kernels() -> Any | None:
    """The module of compiled loops; None when numba is absent or switched off."""
    if os.environ.get("KIT_NUMBA") == "0":
        return None
    with _LOADING:  # two threads that load at once would compile what is compiled
        return _compiled()


@functools.cache
def _compiled() -> Any | None:
    try:
        from kit.collecting import compiled

        compiled.load()
        return compiled
    except Exception:  # numba is absent, or refuses this numpy or processor; the numpy path gives the same
        return None


def keys(values: np.ndarray) -> np.ndarray:
    """Integers in the order of the floats: int32, -0.0 just below 0.0, infinities and NaN at the ends."""
    bits = values.view(np.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def unkeys(found: np.ndarray) -> np.ndarray:
    """The float32 values that ``keys`` stand for, -0.0 made 0.0."""
    return (found ^ ((found >> 31) & 0x7FFFFFFF)).view(np.float32) + np.float32(0)


def inner_keys(low: float, high: float) -> tuple[int, int]:
    """Keys of the smallest and the largest float32 that lie in ``low`` to ``high``."""
    top = float(np.finfo(np.float32).max)
    ends = np.array([max(low, -top), min(high, top)]).astype(np.float32)
    if float(ends[0]) < low:
        ends[0] = np.nextafter(ends[0], np.float32(np.inf))
    if float(ends[1]) > high:
        ends[1] = np.nextafter(ends[1], np.float32(-np.inf))
    first, last = (int(key) for key in keys(ends + np.float32(0)))
    return first - (first == 0), last  # -0.0 lies just below 0.0 and is the same


def extremes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row of float32 [rows, n]: smallest and largest key of the finite values, and how many are finite."""
    found = keys(rows)
    finite = (found >= LOWEST) & (found <= HIGHEST)
    return (np.where(finite, found, NO_LOW).min(axis=1, initial=NO_LOW).astype(np.int32),
            np.where(finite, found, NO_HIGH).max(axis=1, initial=NO_HIGH).astype(np.int32), finite.sum(axis=1))


def sums(rows: np.ndarray) -> np.ndarray:
    """Exact sum of the finite values of each row of float32 [rows, n]: int64 [rows, SLOTS], carried."""
    slots = np.zeros((len(rows), SLOTS), np.int64)
    for at in range(0, rows.shape[1], BLOCK):
        bits = np.ascontiguousarray(rows[:, at : at + BLOCK]).view(np.int32)
        exponent = (bits >> 23) & 0xFF
        mantissa = ((bits & 0x7FFFFF) | np.where(exponent > 0, 0x800000, 0)).astype(np.int64)
        mantissa[exponent == 0xFF] = 0
        np.negative(mantissa, out=mantissa, where=bits < 0)
        shift = np.maximum(exponent, 1) - 1
        mantissa <<= shift % DIGIT
        shift //= DIGIT
        for slot in np.unique(shift):
            slots[:, slot] += np.where(shift == slot, mantissa, 0).sum(axis=1)
        carry(slots)
    return slots


def carry(slots: np.ndarray) -> None:
    """Bring every digit but the last into 0 to 65535: the one form of each sum."""
    for at in range(SLOTS - 1):
        over = slots[:, at] >> DIGIT
        slots[:, at] -= over << DIGIT
        slots[:, at + 1] += over


def means(slots: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Correctly rounded means, float64: the sums of ``slots`` over ``counts``; NaN where the count is 0."""
    totals = [sum(int(digit) << (DIGIT * at) for at, digit in enumerate(line) if digit) for line in slots]
    # Python divides whole numbers of any length with one rounding.
    return np.array([total / (int(count) << 149) if count else np.nan
                     for total, count in zip(totals, counts, strict=True)], np.float64)
