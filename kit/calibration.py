"""Measure what a model's tensors hold, so that INT8 can resolve it: one pass, memory that does not grow with samples.

Every float tensor that quantization may need is made an output of the graph; ONNX Runtime runs sample by sample, and
each tensor's values go into a histogram (``kit.int8.histogram``) and are let go. Ranges by any method come from the
histograms afterwards; the model is not run again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from kit.card import Card, Table
from kit.errors import BadInput, StaleResult, UnsupportedModel, unknown
from kit.int8 import ranges as methods
from kit.int8.exposed import exposed
from kit.int8.histogram import Histogram
from kit.int8.quantizable import Network, prepare
from kit.model import Model, read
from kit.options import Help, Options, Range, expect
from kit.progress import Report, Tick, silent
from kit.record import Provenance, digest, run_stage
from kit.samples import sample_name

VERSION = 1
_PROBE_BYTES = 64_000_000  # inputs and outputs kept to compare by


@dataclass(frozen=True)
class CalibrateOptions(Options):
    """How to calibrate. Which ranges are chosen is decided later, by ``QuantizeOptions.method``."""

    samples: Annotated[int, Range(1, 1000), Help("at most so many samples, the first ones")] = 100
    bad_values: Annotated[
        Literal["refuse", "skip", "count"],
        Help("NaN or infinity in a sample: stop and say where, leave the sample out, or count them and go on"),
    ] = "refuse"
    passes: Annotated[int, Range(1, 16), Help("measure the tensors in so many parts: less memory, more time")] = 1
    probes: Annotated[
        int, Range(0, 32), Help("samples kept with the float answer, by which INT8 settings are compared")
    ] = 8
    threads: Annotated[int, Range(1, 64), Help("processor cores to use")] = 2


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
class Fault:
    """Values that are not finite: the first node that made them, and the sample it was given."""

    sample: str
    tensor: str
    node: str
    operator: str
    nan: int
    infinite: int

    def __str__(self) -> str:
        made = f"{self.operator} node {self.node!r} made" if self.node else "its input holds"
        return f"{self.sample}: {made} {self.nan} NaN and {self.infinite} infinite values in {self.tensor!r}"


@dataclass(frozen=True)
class Calibration(Card):
    """What the tensors of a model hold, over the calibration samples.

    Attributes:
        model: digest of the model that was run.
        model_name: its file's name.
        statistics: histograms of all tensors (.npz).
        probe: inputs and float outputs of a few samples (.npz); None when none were kept.
        samples: how many samples were counted.
        samples_digest: of the samples and their preprocessing.
        tensors: one entry a tensor, in topological order.
        faults: samples that held values which are not finite.
        left_out: names of the samples that were left out.
        notes: sentences for the reader.
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
    provenance: Provenance | None = field(default=None, compare=False)

    def histograms(self) -> dict[str, Histogram]:
        """The histogram of every tensor measured."""
        return dict(_histograms(str(self.statistics), self.statistics.stat().st_mtime_ns))

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
            BadInput: unknown method.
        """
        return {name: methods.choose(histogram, method, percentile=percentile)
                for name, histogram in self.histograms().items() if histogram.elements}

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

    def title(self) -> str:
        return f"{len(self.tensors)} tensors of {self.model_name} measured over {self.samples} samples"

    def facts(self) -> dict[str, object]:
        values = sum(t.elements for t in self.tensors)
        widest = max(self.tensors, key=lambda t: t.maximum - t.minimum)
        coarse = [t.name for t in self.tensors if t.occupied < 64 and t.maximum > t.minimum]
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

    def work(folder: Path, report: Report) -> Calibration:
        return _measure(model, samples, options, folder, report)

    return run_stage("calibrate", Calibration, work, options=options, inputs={"model": model, "samples": samples},
                     name=short_name(model), version=VERSION, runs=runs, report=report)


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


def _measure(model: Model, samples: Sequence, options: CalibrateOptions, folder: Path, report: Report) -> Calibration:
    network = Network(prepare(read(model.path, weights=False), model.path.name), model.path.name)
    tensors = network.measured()
    if not tensors:
        raise UnsupportedModel(f"{model.path.name} has no float32 node that could become INT8.",
                               remedy="leave it as it is; kit.audit lists its operators")
    histograms = {name: Histogram() for name in tensors}
    parts = [tensors[at :: options.passes] for at in range(min(options.passes, len(tensors)))]
    total, faults, kept, skipped = len(samples) * len(parts), [], [], set()
    # Spread over all samples: neighbours in a folder are often alike.
    count = min(options.probes, len(samples))
    probes = {at * len(samples) // count for at in range(count)}
    for number, part in enumerate(parts):
        with exposed(network, model, part, threads=options.threads) as run:
            for at in range(len(samples)):
                name = sample_name(samples, at)
                report(Tick(number * len(samples) + at, total, "calibrating"))
                if at in skipped:
                    continue
                feeds = dict(samples[at])
                answers = {**feeds, **run(feeds)}
                fault = _first_fault(network, part, answers, name)
                if fault:
                    _refuse_or_note(fault, options, faults)
                    if options.bad_values == "skip":
                        _check_first_pass(number, fault)
                        skipped.add(at)
                        continue
                if number == 0 and at in probes:
                    kept.append((feeds, {key: answers[key] for key in network.outputs}))
                for tensor in part:
                    histograms[tensor].add(answers.pop(tensor) if tensor not in feeds else answers[tensor])
    report(Tick(total, total, "calibrating"))
    if len(skipped) == len(samples):
        raise BadInput("Every sample made values that are not finite, so nothing was measured.",
                       remedy="run one sample through the float model: " + str(faults[0]))
    return _result(model, network, histograms, faults, kept, skipped, samples, folder)


def _result(model: Model, network: Network, histograms: dict[str, Histogram], faults: list[Fault], kept: list,
            skipped: set[int], samples: Sequence, folder: Path) -> Calibration:
    statistics = folder / "statistics.npz"
    names = list(histograms)
    np.savez_compressed(
        statistics, names=np.array(names), numbers=np.stack([histograms[n].numbers() for n in names]),
        lengths=np.array([len(histograms[n].counts) for n in names]),
        counts=np.concatenate([histograms[n].counts for n in names]))
    left_out = tuple(sample_name(samples, at) for at in sorted(skipped))
    return Calibration(
        model=model.digest(), model_name=model.path.name, statistics=statistics, probe=_save_probes(kept, folder),
        samples=len(samples) - len(skipped), samples_digest=digest(samples),
        tensors=tuple(_describe(network, name, histograms[name]) for name in names), faults=tuple(faults),
        left_out=left_out, notes=_notes(network, histograms))


def _save_probes(kept: list[tuple[dict, dict]], folder: Path) -> Path | None:
    arrays, size, count = {}, 0, 0
    for at, sides in enumerate(kept):
        found = {f"{at}/{side}/{key}": value for side, part in zip(("in", "out"), sides, strict=True)
                 for key, value in part.items()}
        size += sum(array.nbytes for array in found.values())
        if count and size > _PROBE_BYTES:
            break
        arrays.update(found)
        count += 1
    if not count:
        return None
    np.savez(folder / "probe.npz", count=np.array(count), **arrays)
    return folder / "probe.npz"


def _describe(network: Network, name: str, histogram: Histogram) -> TensorStatistics:
    node = network.producers.get(name)
    seen = histogram.elements
    return TensorStatistics(
        name, node.name if node else "", node.op_type if node else "input", seen,
        histogram.minimum if seen else 0.0, histogram.maximum if seen else 0.0, histogram.occupied, histogram.nan,
        histogram.infinite)


def _notes(network: Network, histograms: dict[str, Histogram]) -> tuple[str, ...]:
    notes = []
    empty = [name for name, histogram in histograms.items() if not histogram.elements]
    if empty:
        notes.append(f"{len(empty)} tensors never held a value ({', '.join(empty[:3])}): their nodes stay in float.")
    zero = [name for name, histogram in histograms.items()
            if histogram.elements and histogram.minimum == histogram.maximum == 0]
    if zero:
        notes.append(f"{len(zero)} tensors are zero for every sample ({', '.join(zero[:3])}).")
    folded = sum(node.op_type == "BatchNormalization" for node in network.nodes)
    if folded:
        notes.append(f"{folded} BatchNormalization nodes are not folded: run kit.fix first.")
    return tuple(notes)


def _first_fault(network: Network, part: Sequence[str], answers: Mapping[str, np.ndarray], name: str) -> Fault | None:
    for tensor in part:  # in topological order, so the first is where it began
        values = answers[tensor]
        # One pass: any NaN or infinity makes the sum of the extremes not finite.
        if not values.size or math.isfinite(float(values.min()) + float(values.max())):
            continue
        node = network.producers.get(tensor)
        nan = int(np.isnan(values).sum())
        return Fault(name, tensor, node.name if node else "", node.op_type if node else "", nan,
                     int(np.isinf(values).sum()))
    return None


def _refuse_or_note(fault: Fault, options: CalibrateOptions, faults: list[Fault]) -> None:
    if options.bad_values == "refuse":
        where = "look at the sample: its tensor is bad before the model runs" if not fault.node else \
            "look at what goes into that node"
        raise BadInput(f"Sample {fault}.", remedy=f"{where}; or leave such samples out with bad_values='skip', or "
                       "count them with bad_values='count' if the model means them (attention masks)")
    if fault.sample not in {known.sample for known in faults}:
        faults.append(fault)


def _check_first_pass(number: int, fault: Fault) -> None:
    if number:
        raise BadInput(f"Sample {fault}. It was counted in an earlier pass, so it cannot be left out any more.",
                       remedy="calibrate with passes=1, or remove the sample")


@functools.lru_cache(maxsize=4)
def _histograms(path: str, _changed: int) -> dict[str, Histogram]:
    with np.load(path) as stored:
        counts = np.split(stored["counts"], np.cumsum(stored["lengths"])[:-1])
        return {str(name): Histogram.restore(numbers, part)
                for name, numbers, part in zip(stored["names"], stored["numbers"], counts, strict=True)}
