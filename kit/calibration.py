"""Measure what a model's tensors hold, so that INT8 can resolve it: one pass, memory that does not grow with samples.

Every float tensor that quantization may need is made an output of the graph, which runs part by part
(``kit.int8.parts``); each tensor's values are counted (``kit.int8.collector``) and let go. Ranges by any method come
from the histograms afterwards; the model is not run again. The counts are the same bytes for any order of the samples,
any split into batches, any merge of partial runs, and after any interruption.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from kit.card import Card, Table
from kit.errors import BadInput, StaleResult, UnsupportedModel, unknown
from kit.int8 import ranges as methods
from kit.int8.arrays import load_arrays, save_arrays
from kit.int8.budget import Budget, budget, memory_limit
from kit.int8.collector import Channels, Collector
from kit.int8.histogram import Histogram
from kit.int8.measuring import Fault, Identities, Measured, Setup, channel_axes, identify, measure, probe_file
from kit.int8.preparing import prepare
from kit.int8.quantizable import Network
from kit.model import Model
from kit.options import Help, Options, Range, expect
from kit.progress import Report, silent
from kit.record import Provenance, fingerprint, run_stage, runs_folder
from kit.runner import check_feeds
from kit.weights_file import read_light

__all__ = ["CalibrateOptions", "Calibration", "Fault", "TensorStatistics", "calibrate", "merge_calibrations"]

VERSION = 2
_PROBE_BYTES = 64_000_000  # inputs and outputs kept to compare by


@dataclass(frozen=True)
class CalibrateOptions(Options):
    """How to calibrate. Which ranges are chosen is decided later, by ``QuantizeOptions.method``."""

    samples: Annotated[int, Range(1, 1000), Help("at most so many samples, the first ones")] = 100
    bad_values: Annotated[
        Literal["refuse", "skip", "count"],
        Help("NaN or infinity in a sample: stop and say where, leave the sample out, or count them and go on"),
    ] = "refuse"
    passes: Annotated[
        int, Range(0, 64), Help("run the model in so many parts, which saves memory; 0 lets the forecast choose")
    ] = 0
    probes: Annotated[
        int, Range(0, 32), Help("samples kept with the float answer, by which INT8 settings are compared")
    ] = 8
    threads: Annotated[int, Range(1, 64), Help("samples run and counted at a time, each on a processor core")] = 2
    histograms: Annotated[
        bool, Help("off: extremes alone, for the range method minmax; quicker")
    ] = True
    memory_limit_mb: Annotated[
        int, Range(0, 1_000_000), Help("stop before this process takes more; 0 for most of what is free")
    ] = 0
    seconds: Annotated[int, Range(0, 1_000_000), Help("stop after so many seconds; 0 for no limit")] = 0


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
        coarse = [t.name for t in self.tensors if t.occupied < 64 and t.maximum > t.minimum
                  and self.with_histograms]
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


def calibrate(
    model: Any,
    samples: Sequence[Mapping[str, np.ndarray]],
    options: CalibrateOptions = CalibrateOptions(),
    *,
    runs: Path | str | None = None,
    report: Report = silent,
) -> Calibration:
    """Run the samples through a float model and keep a histogram of every tensor that INT8 may need.

    Args:
        model: an .onnx file, a Model, or a result that carries one (``Fixed``).
        samples: ``Samples``, or any sequence of feeds ``{input name: array}``; taken one at a time.
        options: see there.
        runs: where results are kept.
        report: hears the progress.

    Raises:
        BadInput: samples that do not fit the model, none at all, or NaN in one (``bad_values="refuse"``).
        UnsupportedModel: opset below 13, quantized already, or nothing to quantize.
    """
    expect(CalibrateOptions, options)
    model = model_of(model)
    check_samples(samples)
    samples = samples[: options.samples]
    who = identify(samples, options.threads)
    folder = runs_folder(runs) / short_name(model)
    inputs = {"model": _Known(model.digest()), "samples": _Known(who.digest)}
    # How fast and how far does not change the counts: a run may go on with other limits.
    key = fingerprint(VERSION, inputs, options.bad_values, options.probes, options.histograms)
    partial = folder / f".calibrate-{key}.partial"

    def work(place: Path, report: Report) -> Calibration:
        setup = _setup(model, samples[0], options)
        measured = measure(setup, samples, who, partial, report)
        if measured.stopped:
            raise _Stopped(setup, measured)
        return _result(setup, measured, who, place, partial)

    def stage(work: Any, **more: Any) -> Calibration:
        return run_stage("calibrate", Calibration, work, options=options, inputs={**inputs, **more},
                         name=short_name(model), version=VERSION, runs=runs, report=report)

    try:
        found = stage(work)
    except _Stopped as stopped:
        setup, measured = stopped.args
        # Under a name of its own: the next call shall not take it for the whole.
        return stage(lambda place, report: _result(setup, measured, who, place, partial), stopped=measured.stopped,
                     counted=measured.done)
    shutil.rmtree(partial, ignore_errors=True)
    return found


def merge_calibrations(calibrations: Iterable[Calibration], *, runs: Path | str | None = None,
                       report: Report = silent) -> Calibration:
    """Put calibrations of parts of the samples together; the statistics are those of calibrating all at once.

    Args:
        calibrations: of the same model, with the same options, of different samples.
        runs: where results are kept.
        report: hears the progress.

    Raises:
        BadInput: none are given, or two hold the same sample.
        StaleResult: they are of different models, or keep different things.
    """
    parts = list(calibrations)
    if not parts:
        raise BadInput("There are no calibrations to merge.", remedy="give at least one")
    first = parts[0]
    for other in parts[1:]:
        if other.model != first.model:
            raise StaleResult(f"{other.model_name} and {first.model_name} are different models.",
                              remedy="merge calibrations of the same model")
    seen: dict[str, str] = {}
    for at, part in enumerate(parts):
        for key, name in part.sample_names.items():
            if key in seen:
                raise BadInput(f"{name!r} was counted by two of the calibrations ({seen[key]!r} in the other).",
                               remedy="calibrate different samples, so that none counts twice")
            seen[key] = name if name not in seen.values() else f"{name} of part {at}"

    def work(place: Path, report: Report) -> Calibration:
        merged = Collector.load(first.statistics)
        for part in parts[1:]:
            merged.merge(Collector.load(part.statistics))
        merged.save(place / "statistics.npz")
        about = {t.name: t for t in first.tensors}
        return dataclasses.replace(
            first, statistics=place / "statistics.npz", probe=_merge_probes(parts, place),
            samples=sum(p.samples for p in parts), samples_digest=fingerprint(sorted(seen)),
            tensors=tuple(_describe(about[n].node, about[n].operator, n, w) for n, w in merged.tensors.items()),
            faults=tuple(f for p in parts for f in p.faults), left_out=tuple(n for p in parts for n in p.left_out),
            notes=tuple(dict.fromkeys([f"{len(parts)} calibrations merged.", *(n for p in parts for n in p.notes)])),
            complete=all(p.complete for p in parts), stopped="; ".join(p.stopped for p in parts if p.stopped),
            sample_names=seen, provenance=None)

    return run_stage("calibrate", Calibration, work, options=None, inputs={
        f"part {at}": [part.statistics, part.probe or ""] for at, part in enumerate(parts)},
        name=first.model_name.split(".")[0], version=VERSION, runs=runs, report=report)


@dataclass(frozen=True)
class _Known:
    """Something whose digest is known already."""

    value: str

    def digest(self) -> str:
        return self.value


class _Stopped(Exception):
    """The guard ended a run early; carries what was found."""


def model_of(thing: Any) -> Model:
    """The Model in a path, a Model, or a result that carries one as ``model``."""
    found = getattr(thing, "model", thing)
    return found if isinstance(found, Model) else Model.open(found)


def check_samples(samples: Any) -> None:
    """Refuse what is not a sequence of feeds, and an empty one.

    Raises:
        BadInput: says what was given.
    """
    if not isinstance(samples, Sequence) or isinstance(samples, str):
        raise BadInput(f"Samples must be a sequence of feeds; this is a {type(samples).__name__}.",
                       remedy="give Samples.from_folder(...), or a list of {input name: array}")
    if not len(samples):
        raise BadInput("There are no samples.", remedy="give at least one; for calibration 32 to 300 are usual")


def short_name(model: Model) -> str:
    """A model's name for its folder of results: the file's, up to the first dot."""
    return model.path.name.split(".")[0]


def network_of(model: Model) -> tuple[Network, dict[str, int]]:
    """A model's prepared graph, and the tensors to measure with the axis of their channels.

    Raises:
        UnsupportedModel: opset below 13, quantized already, or nothing to quantize.
    """
    network = Network(prepare(read_light(model.path), model.path.name), model.path.name)
    tensors = network.measured()
    if not tensors:
        raise UnsupportedModel(f"{model.path.name} has no float32 node that could become INT8.",
                               remedy="leave it as it is; kit.audit lists its operators")
    return network, channel_axes(network, tensors)


def plan(model: Model, network: Network, axes: dict[str, int], feeds: Mapping[str, np.ndarray],
         options: CalibrateOptions) -> Budget:
    """In how many parts and threads a model will be run.

    Raises:
        BadInput: the first sample does not fit.
        UnsupportedModel: it would take more memory than there is.
    """
    return budget(network, model, axes, check_feeds(feeds, model.inputs, model.path.name), parts=options.passes,
                  workers=options.threads, limit=memory_limit(options.memory_limit_mb), histograms=options.histograms)


def _setup(model: Model, feeds: Mapping[str, np.ndarray], options: CalibrateOptions) -> Setup:
    network, axes = network_of(model)
    chosen = plan(model, network, axes, feeds, options)
    return Setup(network, model, axes, chosen.sizes, chosen.parts, chosen.workers, options.bad_values,
                 options.histograms, options.probes, memory_limit(options.memory_limit_mb), options.seconds)


def _result(setup: Setup, measured: Measured, who: Identities, folder: Path, partial: Path) -> Calibration:
    network, model, collector = setup.network, setup.model, measured.collector
    if len(measured.skipped) == measured.done and measured.done:
        raise BadInput("Every sample made values that are not finite, so nothing was measured.",
                       remedy="run one sample through the float model: " + str(measured.faults[0]))
    collector.save(folder / "statistics.npz")
    makers = {name: network.producers.get(name) for name in collector.tensors}
    counted = [at for at in range(measured.done) if at not in set(measured.skipped)]
    names = {key: name for key, name in who.named().items() if any(key in who.items[at] for at in counted)}
    return Calibration(
        model=model.digest(), model_name=model.path.name, statistics=folder / "statistics.npz",
        probe=_save_probes([probe_file(partial, key) for key in who.spread(setup.probes).values()], folder),
        samples=len(counted), samples_digest=who.digest,
        tensors=tuple(_describe(node.name if node else "", node.op_type if node else "input", name,
                                collector.tensors[name]) for name, node in makers.items()),
        faults=tuple(measured.faults), left_out=tuple(who.names[at] for at in measured.skipped),
        notes=_notes(network, collector), complete=not measured.stopped, stopped=measured.stopped,
        with_histograms=setup.histograms, sample_names=names)


def _save_probes(found: Iterable[Path], folder: Path) -> Path | None:
    paths = [path for path in found if path.is_file()]
    paths = [path for at, path in enumerate(paths)
             if not at or sum(p.stat().st_size for p in paths[: at + 1]) <= _PROBE_BYTES]
    if not paths:
        return None

    def arrays() -> Iterator[tuple[str, np.ndarray]]:
        yield "count", np.array(len(paths))
        for at, path in enumerate(paths):
            for name, array in load_arrays(path).items():
                yield f"{at}/{name}", array

    save_arrays(folder / "probe.npz", arrays(), compress=False)
    return folder / "probe.npz"


def _merge_probes(parts: Sequence[Calibration], folder: Path) -> Path | None:
    kept = [probe for part in parts for probe in part.probes()]
    if not kept:
        return None
    wanted = max(len(list(part.probes())) for part in parts)
    kept = [kept[at * len(kept) // wanted] for at in range(wanted)]
    save_arrays(folder / "probe.npz", [("count", np.array(len(kept))), *(
        (f"{at}/{side}/{name}", array) for at, sides in enumerate(kept)
        for side, part in zip(("in", "out"), sides, strict=True) for name, array in part.items())], compress=False)
    return folder / "probe.npz"


def _describe(node: str, operator: str, name: str, watched: Any) -> TensorStatistics:
    kept = watched.histogram
    seen = kept.elements
    return TensorStatistics(name, node, operator, seen, kept.minimum if seen else 0.0, kept.maximum if seen else 0.0,
                            kept.occupied, kept.nan, kept.infinite)


def _notes(network: Network, collector: Collector) -> tuple[str, ...]:
    notes, kept = [], {name: watched.histogram for name, watched in collector.tensors.items()}
    empty = [name for name, found in kept.items() if not found.elements]
    if empty:
        notes.append(f"{len(empty)} tensors never held a value ({', '.join(empty[:3])}): their nodes stay in float.")
    zero = [name for name, found in kept.items() if found.elements and found.minimum == found.maximum == 0]
    if zero:
        notes.append(f"{len(zero)} tensors are zero for every sample ({', '.join(zero[:3])}).")
    folded = sum(node.op_type == "BatchNormalization" for node in network.nodes)
    if folded:
        notes.append(f"{folded} BatchNormalization nodes are not folded: run kit.fix first.")
    return tuple(notes)


def _extremes_only(what: str) -> BadInput:
    return BadInput(f"{what}; this calibration kept extremes alone.",
                    remedy="calibrate with histograms=True, or take the range method minmax")


@functools.lru_cache(maxsize=4)
def _collector(path: str, _changed: int) -> Collector:
    return Collector.load(Path(path))
