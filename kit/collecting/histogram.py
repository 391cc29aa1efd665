"""A histogram whose answer does not depend on how the data came: any order, any split, any merge, the same bytes.

The bin width is always an exact power of two and the grid is anchored at zero: value ``x`` lies in bin
``floor(x / 2**exponent)``. When the range grows, pairs of bins become one and the width doubles; as a coarser grid of
this kind is exactly the pairwise sum of the finer one, the counts equal those of binning all data at once. The
exponent follows from the exact minimum and maximum alone, so it does not depend on the order either.

At most 4096 bins are kept, 32 kB a tensor. Memory does not depend on how much is fed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kit.errors import BadInput

BINS = 4096
_INDEX_BITS = 22  # |bin index| stays below 2**22, where float32 still tells neighbouring integers apart
_LOWEST = -1074 - _INDEX_BITS  # exponent for data that is zero everywhere: the finest grid of any float64
_BLOCK = 1 << 16  # elements worked on at a time: the buffers stay in the processor's cache


class Extremes:
    """Exact minimum and maximum, and how many values there were: a histogram without bins, for min-max alone.

    Attributes:
        elements: how many finite values were fed.
        minimum: smallest finite value fed, exact; inf while there is none.
        maximum: largest finite value fed, exact; -inf while there is none.
        nan: how many NaN were fed.
        infinite: how many infinities were fed.
    """

    __slots__ = ("elements", "infinite", "maximum", "minimum", "nan")
    occupied = 0
    counts = np.zeros(0, np.int64)

    def __init__(self) -> None:
        self.minimum, self.maximum = math.inf, -math.inf
        self.elements = self.nan = self.infinite = 0

    def add(self, array: Any) -> None:
        """Take the values of an array of any shape and number type."""
        values, self.nan, self.infinite = _finite(as_floats(array), self.nan, self.infinite)
        if values.size:
            self.take(float(values.min()), float(values.max()), values.size)

    def take(self, low: float, high: float, elements: int) -> None:
        """Take ``elements`` finite values of which the extremes are known."""
        self.minimum, self.maximum = min(low, self.minimum) + 0.0, max(high, self.maximum) + 0.0
        self.elements += elements

    def merge(self, other: Extremes) -> None:
        """Add what another has seen."""
        self.take(other.minimum, other.maximum, other.elements)
        self.nan += other.nan
        self.infinite += other.infinite

    def numbers(self) -> np.ndarray:
        """All of it, float64 [6]: elements, 0, minimum, maximum, NaN, infinities."""
        return np.array([self.elements, 0, self.minimum, self.maximum, self.nan, self.infinite], np.float64)

    @classmethod
    def restore(cls, numbers: np.ndarray, counts: np.ndarray) -> Extremes:
        """What ``numbers()`` describes; there are no ``counts``."""
        made = cls()
        made.elements, made.minimum, made.maximum = int(numbers[0]), float(numbers[2]), float(numbers[3])
        made.nan, made.infinite = int(numbers[4]), int(numbers[5])
        return made


class Histogram:
    """Counts of finite values, exact minimum and maximum, and counts of what is not finite.

    Attributes:
        exponent: the bin width is ``2**exponent``.
        start: index of the first bin kept; its lower edge is ``start * 2**exponent``.
        counts: int64, one a bin, from the bin of the minimum to the bin of the maximum.
        minimum: smallest finite value fed, exact; inf while there is none.
        maximum: largest finite value fed, exact; -inf while there is none.
        nan: how many NaN were fed.
        infinite: how many infinities were fed.
    """

    __slots__ = ("counts", "exponent", "infinite", "maximum", "minimum", "nan", "start")

    def __init__(self) -> None:
        self.exponent, self.start = _LOWEST, 0
        self.counts = np.zeros(0, np.int64)
        self.minimum, self.maximum = math.inf, -math.inf
        self.nan = self.infinite = 0

    @property
    def elements(self) -> int:
        """How many finite values were counted."""
        return int(self.counts.sum())

    @property
    def fed(self) -> int:
        """How many values were fed, finite or not."""
        return self.elements + self.nan + self.infinite

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def occupied(self) -> int:
        """How many bins hold at least one value: below 64, an outlier has made the grid too coarse to choose by."""
        return int(np.count_nonzero(self.counts))

    def edges(self) -> np.ndarray:
        """Borders of the bins, float64, one more than there are bins."""
        return np.ldexp(np.arange(self.start, self.start + len(self.counts) + 1, dtype=np.float64), self.exponent)

    def centres(self) -> np.ndarray:
        """Middles of the bins, float64, no further out than the minimum and maximum."""
        middles = np.arange(self.start, self.start + len(self.counts), dtype=np.float64) + 0.5
        return np.clip(np.ldexp(middles, self.exponent), self.minimum, self.maximum)

    def add(self, array: Any) -> None:
        """Count the values of an array of any shape; booleans, integers and float16, 32 and 64 are taken.

        Raises:
            BadInput: complex numbers, text or objects.
        """
        values, self.nan, self.infinite = _finite(as_floats(array).reshape(-1), self.nan, self.infinite)
        if not values.size:
            return
        self.cover(float(values.min()), float(values.max()))
        for at in range(0, len(values), _BLOCK):
            self._count(values[at : at + _BLOCK])

    def merge(self, other: Histogram) -> None:
        """Add what another histogram has counted."""
        self.nan += other.nan
        self.infinite += other.infinite
        if other.elements:
            self.cover(other.minimum, other.maximum)
            self._place(other.counts, other.start, self.exponent - other.exponent)

    def copy(self) -> Histogram:
        """An independent histogram with the same counts."""
        twin = Histogram()
        twin.merge(self)
        return twin

    def numbers(self) -> np.ndarray:
        """Everything but the counts, float64 [6]: exponent, start, minimum, maximum, NaN, infinities."""
        return np.array([self.exponent, self.start, self.minimum, self.maximum, self.nan, self.infinite], np.float64)

    @classmethod
    def restore(cls, numbers: np.ndarray, counts: np.ndarray) -> Histogram:
        """The histogram that ``numbers()`` and ``counts`` describe."""
        made = cls()
        made.exponent, made.start = int(numbers[0]), int(numbers[1])
        made.minimum, made.maximum = float(numbers[2]), float(numbers[3])
        made.nan, made.infinite = int(numbers[4]), int(numbers[5])
        made.counts = np.array(counts, np.int64)
        return made

    def tobytes(self) -> bytes:
        """All of it as bytes: equal data, equal bytes."""
        return self.numbers().tobytes() + self.counts.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.tobytes() == other.tobytes()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        span = f"{self.minimum:.4g} to {self.maximum:.4g}" if self.elements else "nothing"
        return f"Histogram({self.elements} values, {span}, {len(self.counts)} bins of 2**{self.exponent})"

    def cover(self, low: float, high: float) -> None:
        """Widen the bins and their number so that ``low`` to ``high`` fits."""
        # + 0.0 makes -0.0 into 0.0: which of the two comes first must not show.
        low, high = min(low, self.minimum) + 0.0, max(high, self.maximum) + 0.0
        if low == self.minimum and high == self.maximum:
            return
        exponent = _exponent(low, high)
        counts, start, shift = self.counts, self.start, exponent - self.exponent
        self.minimum, self.maximum, self.exponent = low, high, exponent
        self.start = _index(low, exponent)
        self.counts = np.zeros(_index(high, exponent) - self.start + 1, np.int64)
        self._place(counts, start, shift)

    def _place(self, counts: np.ndarray, start: int, shift: int) -> None:
        """Add counts of a grid that is ``2**shift`` times as fine, whose first bin is ``start``."""
        if not counts.size:
            return
        # An arithmetic shift is the floor of halving, for negative bins too.
        into = (np.arange(start, start + len(counts)) >> min(shift, 63)) - self.start
        # Bins that were only just covered hold nothing; their place may lie outside.
        used = counts > 0
        np.add.at(self.counts, into[used], counts[used])

    def _count(self, values: np.ndarray) -> None:
        if values.dtype == np.float32 and abs(self.exponent) <= 100:
            scaled = values * np.float32(math.ldexp(1.0, -self.exponent))  # exact: only the exponent changes
        else:
            scaled = np.ldexp(values.astype(np.float64), -self.exponent)
        if self.minimum >= 0:
            # Casting cuts towards zero, which is the floor here.
            self.counts += np.bincount(scaled.astype(np.int64) - self.start, minlength=len(self.counts))
            return
        bins = np.floor(scaled, out=scaled).astype(np.int64)
        if self.maximum < 0:
            # A value too small to be scaled has become 0; its bin is the last below zero.
            np.minimum(bins, -1, out=bins)
        found = np.bincount(bins - self.start, minlength=len(self.counts))
        if self.maximum >= 0:
            # The same among values of both signs: those that are missing below zero stand in bin 0.
            lost = int(np.count_nonzero(values < 0)) - int(found[: -self.start].sum())
            if lost:
                found[-self.start] -= lost
                found[-self.start - 1] += lost
        self.counts += found


def as_floats(array: Any) -> np.ndarray:
    """An array as float32 or float64, its shape kept.

    Raises:
        BadInput: complex numbers, text or objects.
    """
    values = np.asarray(array)
    if values.dtype.kind in "biu":
        values = values.astype(np.float64)
    elif values.dtype.kind != "f" or values.dtype.itemsize > 8:
        raise BadInput(f"A histogram cannot count {values.dtype} values.",
                       remedy="give booleans, integers or floating-point numbers up to 64 bits")
    elif values.dtype == np.float16:
        values = values.astype(np.float32)
    return values


def _finite(values: np.ndarray, nan: int, infinite: int) -> tuple[np.ndarray, int, int]:
    """The finite values, and the counts of the others raised by what was found."""
    if not values.size or math.isfinite(float(values.min()) + float(values.max())):
        return values, nan, infinite
    finite, found = np.isfinite(values), int(np.count_nonzero(np.isnan(values)))
    return values[finite], nan + found, infinite + int(values.size - np.count_nonzero(finite)) - found


def _exponent(low: float, high: float) -> int:
    """The finest grid on which ``low`` to ``high`` takes at most ``BINS`` bins. Never falls as the range grows."""
    magnitude = max(abs(low), abs(high))
    exponent = max(math.frexp(magnitude)[1] - _INDEX_BITS, _LOWEST) if magnitude else _LOWEST
    while _index(high, exponent) - _index(low, exponent) >= BINS:
        exponent += 1
    return exponent


def _index(value: float, exponent: int) -> int:
    scaled = math.ldexp(value, -exponent)
    # A negative value that is too small to be scaled becomes -0.0; it still lies below zero.
    return -1 if value < 0 and scaled == 0 else math.floor(scaled)
