"""What a calibration is: the histograms of all tensors, and what can be asked of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kit.card import Card, Table
from kit.collecting.collector import Channels, Collector
from kit.collecting.histogram import Histogram
from kit.collecting.measuring import Fault
from kit.errors import BadInput, StaleResult, unknown
from kit.int8 import ranges as methods
from kit.model import Model
from kit.record import Provenance


@dataclass(frozen=True)
class TensorStatistics:
    """What one tensor held.

    Attributes:
        name: of the tensor.
        node: the node that makes it, "" for an input.
        operator: its type.
        elements: how many finite values were seen.
        minimum: exact.
        maximum: exact.
        occupied: bins of the histogram that hold a value.
        nan: how many NaN were seen.
        infinite: how many infinities were seen.
        stretched: a few far values have made the histogram coarse: nearly all others lie in a handful of its bins.
    """

    name: str
    node: str
    operator: str
    elements: int
    minimum: float
    maximum: float
    occupied: int
    nan: int = 0
    infinite: int = 0
    stretched: bool = False


@dataclass(frozen=True)
class Calibration(Card):
    """What the tensors of a model hold, over the calibration samples.

    Attributes:
        model: digest of the model that was run.
        model_name: its file's name.
        statistics: what all tensors held (.npz): equal bytes for equal data, however they came.
        probe: inputs and float outputs of a few samples (.npz); None when none were kept.
        samples: how many samples were counted.
        samples_digest: of the samples and their preprocessing.
        tensors: one entry a tensor, in topological order.
        faults: samples that held values which are not finite.
        left_out: names of the samples that were left out.
        notes: sentences for the reader.
        complete: every sample was counted. A calibration that was stopped can be used; the next call goes on with it.
        stopped: why it ended early, "" when it did not.
        with_histograms: there are histograms, not extremes alone.
        sample_names: digest of each sample -> its name.
    """

    model: str
    model_name: str
    statistics: Path
    probe: Path | None
    samples: int
    samples_digest: str
    tensors: tuple[TensorStatistics, ...] = field(repr=False)
    faults: tuple[Fault, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    complete: bool = True
    stopped: str = ""
    with_histograms: bool = True
    sample_names: dict[str, str] = field(default_factory=dict, repr=False)
    provenance: Provenance | None = field(default=None, compare=False)

    def histograms(self) -> dict[str, Histogram]:
        """The histogram of every tensor measured.

        Raises:
            BadInput: only extremes were kept.
        """
        if not self.with_histograms:
            raise _extremes_only("There are no histograms")
        return {name: watched.histogram for name, watched in self._state().tensors.items()}  # type: ignore[misc]

    def histogram(self, tensor: str) -> Histogram:
        """The histogram of one tensor.

        Raises:
            BadInput: no such tensor; names the closest.
        """
        found = self.histograms()
        if tensor not in found:
            raise unknown("calibrated tensor", tensor, found, self.model_name)
        return found[tensor]

    def ranges(self, method: str = "mse", *, percentile: float = 99.99) -> dict[str, tuple[float, float]]:
        """``(low, high)`` of every tensor by a method of ``kit.int8.ranges``; empty tensors are left out.

        Raises:
            BadInput: unknown method, or only extremes were kept and the method needs more.
        """
        if not self.with_histograms and method in methods.METHODS:
            if method != "minmax":
                raise _extremes_only(f"Ranges by {method} need histograms")
            return {t.name: (min(t.minimum, 0.0), max(t.maximum, 0.0)) for t in self.tensors if t.elements}
        return {name: methods.choose(histogram, method, percentile=percentile)
                for name, histogram in self.histograms().items() if histogram.elements}

    def channels(self, tensor: str) -> Channels:
        """Extremes and exact means of each channel of a tensor that a node with weights reads or makes.

        Raises:
            BadInput: no such tensor, or its channels were not measured; names the closest.
        """
        kept = {name: watched for name, watched in self._state().tensors.items() if watched.width > 0}
        if tensor not in kept:
            raise unknown("tensor with measured channels", tensor, kept, self.model_name)
        found = kept[tensor].channels()
        assert found
        return found

    def sample_maxima(self, tensor: str) -> dict[str, float]:
        """The largest finite magnitude of a tensor in each sample, by the sample's name, in the order of samples.

        Raises:
            BadInput: no such tensor; names the closest.
        """
        kept = self._state().tensors
        if tensor not in kept:
            raise unknown("calibrated tensor", tensor, kept, self.model_name)
        found = kept[tensor].maxima
        return {name: found[key] for key, name in self.sample_names.items() if key in found}

    def probes(self) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """Feeds and float outputs of the samples kept to compare by."""
        if self.probe is None:
            return
        with np.load(self.probe) as stored:
            count = int(stored["count"])
            for at in range(count):
                yield tuple({key.split("/", 2)[2]: stored[key] for key in stored.files  # type: ignore[misc]
                             if key.startswith(f"{at}/{side}/")} for side in ("in", "out"))

    def check(self, model: Model) -> None:
        """Refuse a model that this calibration was not made with.

        Raises:
            StaleResult: names both.
        """
        if model.digest() != self.model:
            raise StaleResult(
                f"This calibration belongs to another model ({self.model_name}); {model.path.name} has other weights "
                "or another graph.", remedy="calibrate this model, or quantize the model that was calibrated")

    def _state(self) -> Collector:
        return _collector(str(self.statistics), self.statistics.stat().st_mtime_ns)

    def title(self) -> str:
        early = "" if self.complete else f", stopped early: {self.stopped}"
        return f"{len(self.tensors)} tensors of {self.model_name} measured over {self.samples} samples{early}"

    def facts(self) -> dict[str, object]:
        values = sum(t.elements for t in self.tensors)
        widest = max(self.tensors, key=lambda t: t.maximum - t.minimum)
        coarse = [t.name for t in self.tensors if t.stretched]
        return {
            "values seen": f"{values:,}",
            "widest range": f"{widest.minimum:.4g} to {widest.maximum:.4g} in {widest.name!r}",
            **({"stretched by an outlier": ", ".join(coarse[:5])} if coarse else {}),
            **({"samples left out": ", ".join(self.left_out)} if self.left_out else {}),
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        rows = tuple((t.name, t.operator, f"{t.minimum:.4g}", f"{t.maximum:.4g}", f"{t.elements:,}", t.occupied)
                     for t in self.tensors)
        found = (Table("Tensors", ("tensor", "made by", "minimum", "maximum", "values", "bins used"), rows),)
        faults = tuple((f.sample, f.operator or "input", f.node, f.tensor, f.nan, f.infinite) for f in self.faults)
        columns = ("sample", "operator", "node", "tensor", "NaN", "infinite")
        return (*found, Table("Values that are not finite, first node of each sample", columns, faults)) if faults \
            else found


def _extremes_only(what: str) -> BadInput:
    return BadInput(f"{what}; this calibration kept extremes alone.",
                    remedy="calibrate with histograms=True, or take the range method minmax")


@functools.lru_cache(maxsize=4)
def _collector(path: str, _changed: int) -> Collector:
    return Collector.load(Path(path))
