"""How far a model's outputs are from float: signal-to-noise ratios, summed sample by sample in constant memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kit.runner import open_runner


def output_sqnr(model: Any, probes: list[tuple[dict, dict]], folder: Path, threads: int = 2) -> float:
    """Signal-to-noise ratio, in dB, of a model's outputs against the float outputs of the probes; all outputs alike.

    Args:
        model: ``onnx.ModelProto``.
        probes: feeds and float outputs.
        folder: where the model may be written for a moment.
    """
    import onnx

    path = folder / "trial.onnx"
    onnx.save_model(model, str(path))
    try:
        with open_runner(path, threads=threads) as runner:
            shares = Noise()
            for feeds, outputs in probes:
                shares.add(outputs, runner(feeds))
    finally:
        path.unlink()
    return shares.decibels()


class Noise:
    """Noise over signal of several outputs, each counted by its own power, in constant memory."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, reference: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
        """Take one sample's arrays; only float ones count."""
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
