"""What calibration keeps of each tensor, and that it is the same bytes for any order, split, merge or interruption.

A tensor has a histogram (or, where that is enough, its extremes), the largest magnitude of each sample, and, where a
node with weights reads or makes it, extremes and exact sums of each channel. Everything kept is an integer, an extreme,
or keyed by the sample; so the whole state is a function of the multiset of what was fed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.collecting import counting
from kit.collecting.arrays import load_arrays, save_arrays
from kit.collecting.histogram import Extremes, Histogram, as_floats
from kit.errors import StaleResult

_MIXED = -1  # width of a tensor whose number of channels changed, or that is not float32: it has no channels
_PIECE = 1 << 18  # values that numpy works on at a time
_NOTHING = np.zeros(1, np.int64)


@dataclass(frozen=True, eq=False)
class Channels:
    """What each channel of a tensor held.

    Attributes:
        axis: 1 for what convolutions read and make, -1 (the last) for Gemm and MatMul.
        minimum: float32 [C], exact; inf where a channel never held a finite value.
        maximum: float32 [C], exact; -inf likewise.
        mean: float64 [C], of the finite values, correctly rounded; NaN likewise.
    """

    axis: int
    minimum: np.ndarray
    maximum: np.ndarray
    mean: np.ndarray


class Watched:
    """The state of one tensor.

    Args:
        axis: where its channels lie: 1, -1, or 0 for a tensor whose channels do not matter.
        histograms: keep a histogram; False for extremes alone, and no sums.
    """

    __slots__ = ("axis", "high", "histogram", "low", "maxima", "seen", "slots", "width")

    def __init__(self, axis: int = 0, *, histograms: bool = True) -> None:
        self.axis = axis
        self.histogram: Histogram | Extremes = Histogram() if histograms else Extremes()
        self.maxima: dict[str, float] = {}
        self._widen(0)

    @property
    def sums(self) -> bool:
        """Whether exact sums are kept."""
        return self.axis != 0 and isinstance(self.histogram, Histogram)

    def add(self, array: Any, sample: str = "") -> None:
        """Count an array that belongs to one sample; "" when no sample shall be remembered.

        Raises:
            BadInput: complex numbers, text or objects.
        """
        values = as_floats(array)
        largest = 0.0
        if values.dtype == np.float32 and values.size:
            flat, inner = self._rows(values)
            compiled = counting.kernels()
            largest = self._count(compiled, flat, inner) if compiled else self._add(flat.reshape(-1, inner), 0)
        elif values.size:
            self._widen(_MIXED)
            self.histogram.add(values)
            largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
        if sample:
            self.maxima[sample] = max(self.maxima.get(sample, 0.0), largest)

    def merge(self, other: Watched) -> None:
        """Add what another state of the same tensor holds."""
        self.histogram.merge(other.histogram)  # type: ignore[arg-type]
        for sample, largest in other.maxima.items():
            self.maxima[sample] = max(self.maxima.get(sample, 0.0), largest)
        if other.width and self._fit(other.width):
            self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
            self.seen = self.seen + other.seen
            self.slots = self.slots + other.slots
            counting.carry(self.slots)

    def channels(self) -> Channels | None:
        """Extremes and means of each channel; None where there are none."""
        if self.width <= 0:
            return None
        low, high = (np.where(self.seen > 0, counting.unkeys(side), end).astype(np.float32)
                     for side, end in ((self.low, np.inf), (self.high, -np.inf)))
        return Channels(self.axis, low, high, counting.means(self.slots, self.seen if self.sums else 0 * self.seen))

    def _widen(self, width: int) -> None:
        """Start with so many channels; ``_MIXED`` for good once two arrays did not agree."""
        self.width, lines = width, max(width, 0)
        self.low, self.high = np.full(lines, counting.NO_LOW, np.int32), np.full(lines, counting.NO_HIGH, np.int32)
        self.seen = np.zeros(lines, np.int64)
        self.slots = np.zeros((lines, counting.SLOTS), np.int64)

    def _fit(self, width: int) -> bool:
        """Whether channels can be kept for an array that has so many."""
        if width != self.width:
            self._widen(width if self.width == 0 else _MIXED)
        return self.width > 0

    def _rows(self, values: np.ndarray) -> tuple[np.ndarray, int]:
        """The values as rows in one piece of memory, each of one channel, and how long a row is."""
        if self.axis:
            if values.ndim < 2:
                self._fit(_MIXED)
            elif self._fit(values.shape[self.axis]):
                # Gemm and MatMul have the channels last: turned, so that a channel is one row.
                turned = np.moveaxis(values, -1, 0)[None] if self.axis == -1 else values
                return np.require(turned, requirements="CA").reshape(-1), turned[:1, :1].size
        return np.require(values, requirements="CA").reshape(-1), values.size

    def _add(self, rows: np.ndarray, first: int) -> float:
        """Count rows, the first of which is number ``first``, by numpy; returns the largest finite magnitude."""
        self.histogram.add(rows)
        largest = 0.0
        for at, piece in _pieces(rows):
            low, high, seen = counting.extremes(piece)
            largest = max(largest, _largest(low.min(), high.max()))
            if self.width > 0:
                line = (first + at + np.arange(len(piece))) % self.width
                np.minimum.at(self.low, line, low)
                np.maximum.at(self.high, line, high)
                np.add.at(self.seen, line, seen)
                if self.sums:
                    np.add.at(self.slots, line, counting.sums(piece))
                    counting.carry(self.slots)
        return largest

    def _count(self, compiled: Any, flat: np.ndarray, inner: int) -> float:
        """Count rows by the compiled loop, and by numpy what that must leave; returns as ``_add`` does."""
        bits, kept = flat.view(np.int32), self.width > 0
        binned = isinstance(self.histogram, Histogram)
        low, high = (self.low, self.high) if kept else (np.empty(1, np.int32), np.empty(1, np.int32))
        where = np.array([0, 0, counting.NO_LOW, counting.NO_HIGH], np.int64)
        state, largest = None, 0.0
        while state != counting.DONE:
            done = int(where[0]) * inner + int(where[1])
            grid = self._grid(compiled, bits[done:], state) if binned else (0, 0, np.float32(1), np.int32(0), False)
            if grid:
                counts = self.histogram.counts if binned else _NOTHING
                state = compiled.count(flat, bits, inner, where, *grid[:4], counts, low, high, self.slots, binned,
                                       kept and self.sums, grid[4])
            if not grid or state == counting.NOT_FINITE:
                largest = self._rest(flat.reshape(-1, inner), int(where[0]), int(where[1]))
                break
        done = int(where[0]) * inner + int(where[1])
        if done and not binned:
            ends = counting.unkeys(where[2:].astype(np.int32))
            self.histogram.take(float(ends[0]), float(ends[1]), done)
        if done and kept:
            rounds, extra = divmod(int(where[0]), self.width)
            self.seen += rounds * inner
            self.seen[:extra] += inner
            self.seen[extra] += int(where[1])
        return max(largest, _largest(where[2], where[3]))

    def _grid(self, compiled: Any, bits: np.ndarray, state: int | None) -> tuple | None:
        """What the compiled loop must know of the histogram; None where float32 cannot reckon its bins."""
        kept = self.histogram
        if state == counting.OUTSIDE or not kept.counts.size:
            low, high = compiled.extremes(bits)
            if low < counting.LOWEST or high > counting.HIGHEST:
                return None
            kept.cover(*(float(end) for end in counting.unkeys(np.array([low, high], np.int32))))
        nothing = kept.minimum == kept.maximum == 0
        if abs(kept.exponent) > 100 and not nothing:
            return None
        low_key, high_key = counting.inner_keys(kept.minimum, kept.maximum)
        return (low_key, high_key, np.float32(1 if nothing else 2.0**-kept.exponent), np.int32(kept.start),
                bool(kept.exponent > 0 and kept.minimum < 0))

    def _rest(self, rows: np.ndarray, row: int, begin: int) -> float:
        """Count by numpy from a place on."""
        largest = 0.0
        if begin:
            largest, row = self._add(rows[row : row + 1, begin:], row), row + 1
        return max(largest, self._add(rows[row:], row)) if row < len(rows) else largest


class Collector:
    """The states of all tensors that are measured.

    Args:
        axes: name of each tensor, in the order they are kept, and the axis of its channels (0: they do not matter).
        histograms: see ``Watched``.
    """

    def __init__(self, axes: Mapping[str, int], *, histograms: bool = True) -> None:
        self.histograms = histograms
        self.tensors = {name: Watched(axis, histograms=histograms) for name, axis in axes.items()}

    def add(self, arrays: Mapping[str, np.ndarray], items: Sequence[str] = (), pool: Executor | None = None) -> None:
        """Count the arrays of one feed.

        Args:
            arrays: by tensor; names that are not watched are passed over.
            items: name of each item of the batch. A tensor whose first axis is as long belongs to them one by one;
                any other belongs to all.
            pool: threads that work on several tensors at once.
        """
        work = sorted((name for name in arrays if name in self.tensors), key=lambda name: -arrays[name].size)
        list((pool.map if pool else map)(lambda name: self._add(self.tensors[name], arrays[name], items), work))

    def _add(self, watched: Watched, array: np.ndarray, items: Sequence[str]) -> None:
        if len(items) > 1 and array.ndim and array.shape[0] == len(items):
            for at, item in enumerate(items):
                watched.add(array[at : at + 1], item)
            return
        watched.add(array, items[0] if items else "")
        for item in items[1:]:
            watched.maxima[item] = max(watched.maxima.get(item, 0.0), watched.maxima[items[0]])

    def merge(self, other: Collector) -> None:
        """Add what another collector of the same tensors holds.

        Raises:
            StaleResult: it watches other tensors, or keeps other things of them.
        """
        if self.layout() != other.layout():
            raise StaleResult("These statistics are of different tensors, or one has no histograms.",
                              remedy="merge calibrations of the same model with the same options")
        for name, watched in self.tensors.items():
            watched.merge(other.tensors[name])

    def layout(self) -> tuple:
        """What must agree for two collectors to be merged."""
        return self.histograms, tuple((name, watched.axis) for name, watched in self.tensors.items())

    def bad(self) -> dict[str, tuple[int, int]]:
        """Counts of NaN and infinities so far, of every tensor that had any."""
        return {name: (w.histogram.nan, w.histogram.infinite) for name, w in self.tensors.items()
                if w.histogram.nan or w.histogram.infinite}

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole state as arrays: equal for equal data, whatever the way."""
        kept = list(self.tensors.values())
        samples = sorted({sample for watched in kept for sample in watched.maxima})
        place = {sample: at for at, sample in enumerate(samples)}
        maxima = np.full((len(kept), len(samples)), np.nan)
        for line, watched in zip(maxima, kept, strict=True):
            for sample, largest in watched.maxima.items():
                line[place[sample]] = largest
        return {
            "names": np.array(list(self.tensors), dtype=np.str_), "histograms": np.array(self.histograms),
            "axes": np.array([w.axis for w in kept], np.int8), "widths": np.array([w.width for w in kept], np.int64),
            "numbers": np.stack([w.histogram.numbers() for w in kept]),
            "lengths": np.array([len(w.histogram.counts) for w in kept], np.int64),
            "counts": np.concatenate([w.histogram.counts for w in kept]),
            "low": np.concatenate([w.low for w in kept]), "high": np.concatenate([w.high for w in kept]),
            "seen": np.concatenate([w.seen for w in kept]), "sums": np.concatenate([w.slots for w in kept]),
            "samples": np.array(samples, dtype=np.str_), "maxima": maxima,
        }

    def save(self, path: Path) -> None:
        """Write the state to a file: equal states, equal bytes."""
        save_arrays(path, self.arrays().items())

    @classmethod
    def restore(cls, stored: Mapping[str, np.ndarray]) -> Collector:
        """The collector that ``arrays()`` describes."""
        histograms = bool(stored["histograms"])
        made = cls(dict(zip(stored["names"].tolist(), stored["axes"].tolist(), strict=True)), histograms=histograms)
        kind = Histogram if histograms else Extremes
        bins, lines, samples = 0, 0, stored["samples"].tolist()
        for at, watched in enumerate(made.tensors.values()):
            length, width = int(stored["lengths"][at]), int(stored["widths"][at])
            watched.histogram = kind.restore(stored["numbers"][at], stored["counts"][bins : bins + length])
            bins += length
            watched._widen(width)
            part = slice(lines, lines + max(width, 0))
            watched.low, watched.high, watched.seen, watched.slots = (
                np.array(stored[name][part]) for name in ("low", "high", "seen", "sums"))
            lines = part.stop
            watched.maxima = {sample: float(value) for sample, value in zip(samples, stored["maxima"][at], strict=True)
                              if not np.isnan(value)}
        return made

    @classmethod
    def load(cls, path: Path) -> Collector:
        """Read a file that ``save`` wrote."""
        return cls.restore(load_arrays(path))


def _pieces(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Parts of rows that numpy can work on without much memory, each with the number of its first row."""
    wide = max(1, min(rows.shape[1], _PIECE))
    tall = max(1, _PIECE // wide)
    for at in range(0, len(rows), tall):
        for begin in range(0, rows.shape[1], wide):
            yield at, rows[at : at + tall, begin : begin + wide]


def _largest(low: Any, high: Any) -> float:
    if low > high:
        return 0.0
    return float(np.abs(counting.unkeys(np.array([low, high], np.int32))).max())
