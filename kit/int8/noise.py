"""How far a model's outputs are from float: signal-to-noise ratios, summed sample by sample in constant memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kit.int8.suppression import as_overlap_sees
from kit.runner import open_runner


def file_sqnr(path: Path, probes: list[tuple[dict, dict]], threads: int = 2) -> float:
    """Signal-to-noise ratio, in dB, of a model's outputs against the float outputs of the probes; all outputs alike.

    Args:
        path: the .onnx file.
        probes: feeds and float outputs.
        threads: processor cores to use.
    """
    with open_runner(path, threads=threads) as runner:
        shares = Noise()
        for feeds, outputs in probes:
            shares.add(outputs, runner(feeds))
    return shares.decibels()


class OutputError:
    """How far the outputs of one way to run a model are from float: noise over signal, the mean of all outputs.

    Args:
        probes: feeds and float outputs.
    """

    def __init__(self, probes: Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]) -> None:
        self._probes = [(feeds, outputs, as_overlap_sees(outputs, outputs)) for feeds, outputs in probes]
        self._signals: dict[str, float] = {}
        for _, _, seen in self._probes:
            for name, values in seen.items():
                if values.dtype.kind == "f":
                    power = float(np.square(values.astype(np.float64)).sum())
                    self._signals[name] = self._signals.get(name, 0.0) + power

    def __call__(self, run: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]],
                 limit: float = math.inf) -> float:
        """The share over all probes; as soon as it has reached ``limit``, what it has reached.

        Args:
            run: takes feeds, gives outputs.
            limit: noise only grows from probe to probe, so the rest need not be run once it is that large.
        """
        share = 0.0
        for feeds, outputs, seen in self._probes:
            found = as_overlap_sees(run(feeds), outputs)
            for name, signal in self._signals.items():
                gap = seen[name].astype(np.float64) - found[name]
                share += float(np.square(gap).sum()) / (signal or 1.0) / len(self._signals)
            if not share < limit:
                break
        return share


class Noise:
    """Noise over signal of several outputs, each counted by its own power, in constant memory."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, reference: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
        """Take one sample's arrays; only float ones count."""
        other, reference = as_overlap_sees(other, reference), as_overlap_sees(reference, reference)
        for name, left in reference.items():
            if left.dtype.kind == "f":
                a, b = left.astype(np.float64), other[name].astype(np.float64)
                sums = self._sums.setdefault(name, [0.0, 0.0])
                sums[0] += float(np.square(a).sum())
                sums[1] += float(np.square(a - b).sum())

    def shares(self) -> dict[str, float]:
        """Noise power over signal power of each; the noise itself where there is no signal."""
        return {name: noise / signal if signal else noise for name, (signal, noise) in self._sums.items()}

    def decibels(self) -> float:
        """The mean share as a signal-to-noise ratio, at most 200 dB."""
        shares = self.shares()
        return decibels(sum(shares.values()) / len(shares)) if shares else 200.0


def decibels(share: float) -> float:
    """Noise over signal as a signal-to-noise ratio in dB, between -200 and 200; not a number counts as -200."""
    if not share <= 1e20:
        return -200.0
    return float(min(200.0, -10 * np.log10(max(share, 1e-20))))
