"""Measure what a model's tensors hold, so that INT8 can resolve it: one pass, memory that does not grow with samples.

Every float tensor that quantization may need is made an output of the graph, which runs part by part
(``kit.collecting.parts``); each tensor's values are counted (``kit.collecting.collector``) and let go. Ranges by any
method come from the histograms afterwards; the model is not run again. The counts are the same bytes for any order of
the samples, any split into batches, any merge of partial runs, and after any interruption.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from kit.collecting.budget import Budget, budget, memory_limit
from kit.collecting.measuring import Fault, Setup, channel_axes, identify, measure
from kit.collecting.result import Calibration, TensorStatistics
from kit.collecting.writing import merged, written
from kit.errors import BadInput, StaleResult, UnsupportedModel
from kit.int8.preparing import prepare
from kit.int8.quantizable import Network
from kit.model import Model
from kit.options import Help, Options, Range, expect
from kit.progress import Report, silent
from kit.record import fingerprint, run_stage, runs_folder
from kit.runner import check_feeds
from kit.weights_file import read_light

__all__ = ["CalibrateOptions", "Calibration", "Fault", "TensorStatistics", "calibrate", "merge_calibrations"]

VERSION = 3


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
        return written(setup, measured, who, place, partial)

    def stage(work: Any, **more: Any) -> Calibration:
        return run_stage("calibrate", Calibration, work, options=options, inputs={**inputs, **more},
                         name=short_name(model), version=VERSION, runs=runs, report=report)

    try:
        found = stage(work)
    except _Stopped as stopped:
        setup, measured = stopped.args
        # Under a name of its own: the next call shall not take it for the whole.
        return stage(lambda place, report: written(setup, measured, who, place, partial), stopped=measured.stopped,
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

    return run_stage("calibrate", Calibration, lambda place, _: merged(parts, seen, place), options=None, inputs={
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
