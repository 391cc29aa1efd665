"""Search: the fastest artefact that is still accurate enough, measured on this machine and not guessed.

INT8 is not always faster, and what is depends on the network, the runtime and the processor. So candidates over
runtime, precision, ranges, layers in float and run settings are built and measured, each in a process of its own, in
turns with a fixed baseline (ONNX Runtime in FP32). The best so far is on the disk at every moment; a search that was
stopped goes on where it was. ``kit/trials`` holds the parts.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np

from kit import worker
from kit.calibration import CalibrateOptions, Calibration, calibrate, check_samples, model_of, short_name
from kit.errors import BadInput, KitError, UnsupportedModel, unknown
from kit.evidence.entries import versions
from kit.int8.processor import this_processor
from kit.model import Model
from kit.options import Help, Options, Range, expect
from kit.progress import Report, part, silent
from kit.record import Provenance, digest, explain_os_error, fingerprint, runs_folder, save
from kit.runner import open_runner
from kit.trials.attempt import Job, run_duel, run_trial
from kit.trials.conduct import conduct
from kit.trials.found import CONFIRMED, Found
from kit.trials.log import Log, Trial, replace_text
from kit.trials.space import INTEGER, Candidate, baseline, multiplies, offers, space

__all__ = ["Candidate", "Found", "SearchOptions", "Trial", "search"]

VERSION = 1
Runtime = Literal["onnxruntime", "openvino"]
Precision = Literal["fp32", "bf16", "fp16", "int8", "int8+bf16", "int8-weights", "int4-weights"]
Method = Literal["auto", "minmax", "percentile", "mse", "entropy", "tensor"]
Level = Literal["all", "extended", "basic"]


@dataclass(frozen=True)
class SearchOptions(Options):
    """What is accurate enough, how long to search, and among what."""

    loss: Annotated[float, Range(0, 1, 0.001), Help(
        "how much of the metric may be lost against float")] = 0.01
    sqnr: Annotated[float, Range(0, 100, 1), Help(
        "without a metric: signal-to-noise ratio in dB that the outputs must keep; 20 dB is noise of 1 % of the power"
    )] = 20.0
    seconds: Annotated[int, Range(1, 604_800, 10), Help(
        "begin no trial after so many seconds; calling again with more goes on")] = 600
    runtimes: Annotated[tuple[Runtime, ...], Help("runtimes to try")] = ("onnxruntime", "openvino")
    precisions: Annotated[tuple[Precision, ...], Help(
        "number formats to try; those that the machine or the runtime lacks are left out")] = get_args(Precision)
    methods: Annotated[tuple[Method, ...], Help(
        "how INT8 ranges are chosen, the quickest first; tensor is the slowest to make")] = ("mse", "auto")
    keep: Annotated[tuple[int, ...], Help(
        "mixed precision: so many groups of layers, those that lose most, stay in float")] = (3, 10)
    threads: Annotated[tuple[int, ...], Help("numbers of threads to try")] = (1, 2)
    levels: Annotated[tuple[Level, ...], Help("how far ONNX Runtime rewrites the graph; all is always tried")] = (
        "all", "extended")
    spinning: Annotated[Literal["on", "both"], Help(
        "ONNX Runtime's threads wait busily; both also tries to let them sleep")] = "on"
    first: Annotated[int, Range(1, 10_000, 1), Help(
        "measure the metric on so many samples first, and on all where those leave it open")] = 32
    rounds: Annotated[int, Range(5, 1000, 1), Help("turns of timing in a trial")] = 12
    finalists: Annotated[int, Range(1, 10, 1), Help(
        "time so many of the best against each other before one is picked")] = 3
    memory_limit_mb: Annotated[int, Range(0, 10_000_000, 100), Help(
        "a trial that takes more is stopped and counts as failed; 0 allows most of what is free")] = 0
    trial_seconds: Annotated[int, Range(10, 86_400, 10), Help("a trial that takes longer is stopped")] = 600
    everything: Annotated[bool, Help(
        "try every candidate and measure each whole: slow; to check the search by")] = False
    repeat: Annotated[int, Range(0, 1_000_000, 1), Help("raise it to measure again from the start")] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kind in (("runtimes", Runtime), ("precisions", Precision), ("methods", Method), ("levels", Level)):
            for value in getattr(self, name):
                if value not in get_args(kind):
                    raise unknown(name.removesuffix("s"), value, get_args(kind), f"SearchOptions.{name}")
        for name, least in (("runtimes", 1), ("precisions", 1), ("methods", 1), ("threads", 1)):
            if len(getattr(self, name)) < least:
                raise BadInput(f"SearchOptions.{name} is empty.", remedy="give at least one")
        for name, low in (("threads", 1), ("keep", 0)):
            values = getattr(self, name)
            if any(not isinstance(value, int) or isinstance(value, bool) or value < low for value in values):
                raise BadInput(f"SearchOptions.{name} cannot be {values!r}.",
                               remedy=f"give whole numbers from {low} on")


# What may change without making the trials wrong.
_FREE = ("seconds", "finalists", "memory_limit_mb", "trial_seconds")


def search(
    model: Any,
    samples: Sequence[Mapping[str, np.ndarray]] | Calibration,
    options: SearchOptions = SearchOptions(),
    *,
    metric: Any = None,
    executor: Executor | None = None,
    runs: Path | str | None = None,
    report: Report = silent,
) -> Found:
    """Find the fastest artefact of a model that is still accurate enough.

    Args:
        model: the float model: an .onnx file, a Model, or a result that carries one.
        samples: to calibrate by and to time with (the first one), or a ready Calibration with probes.
        options: see there. Called again with the same model, samples, metric and options, the search goes on where it
            was; the time allowed may differ.
        metric: from an open runner to a number, larger is better; picklable, such as ``TaskScore``. None judges by
            the error of the outputs on the calibration's probes.
        executor: trials are submitted to it: any of ``concurrent.futures``, or that of a Dask client. Its workers
            must reach the same files, and should not share processors, or trials disturb each other's timing. None
            runs them one after the other here.
        runs: where results are kept.
        report: hears the progress; what it raises stops the search, and the log stays.

    Raises:
        BadInput: samples or metric that cannot be used.
        UnsupportedModel: none of the candidates asked for can run here.
        ToolFailed: the float model cannot be measured.
    """
    expect(SearchOptions, options)
    model = model_of(model)
    home = runs_folder(runs)
    notes: list[str] = []
    calibration = _calibration(model, samples, options, notes, home, report)
    about = executor.submit(offers).result() if executor else worker.run(offers)
    candidates = _candidates(model, options, about, calibration, notes)
    job = _job(model, samples, calibration, metric, options, home)
    inputs = {"model": digest(model), "metric": _metric_digest(metric),
              "samples": digest([calibration.statistics, calibration.probe] if calibration else samples)}
    key = fingerprint("search", VERSION, replace(options, **{n: _default(n) for n in _FREE}), candidates, inputs,
                      versions("onnxruntime", "openvino"), [this_processor().name, os.cpu_count()])
    folder = home / short_name(model) / f"search-{key}"
    allowed = options.loss if metric is not None else 10 ** (-options.sqnr / 10)
    try:
        log = Log(folder, {
            "title": model.path.name, "metric": _metric_name(metric), "allowed": allowed, "space": len(candidates),
            "float_model": inputs["model"], "notes": notes, "options": repr(options), "ended": False})
        ended = conduct(log, functools.partial(run_trial, job), baseline(options), candidates, allowed=allowed,
                        seconds=options.seconds, everything=options.everything, executor=executor, report=report)
        _confirm(log, job, allowed, executor, report)
        log.say(ended=ended)
        found = Found.open(folder)
        provenance = Provenance("search", key, folder, time.strftime("%Y-%m-%d %H:%M:%S"), found.seconds, inputs,
                                repr(options), {})
        found = replace(found, provenance=provenance)
        save(found, folder)
    except OSError as error:
        raise explain_os_error(error, folder) from error
    return found


def _calibration(model: Model, samples: Any, options: SearchOptions, notes: list[str], home: Path,
                 report: Report) -> Calibration | None:
    if isinstance(samples, Calibration):
        samples.check(model)
        if samples.probe is None:
            raise BadInput("This calibration kept no probe samples to time and to compare with.",
                           remedy="calibrate with probes=8, or give the samples")
        return samples
    check_samples(samples)
    if not set(options.precisions) & set(INTEGER):
        return None
    threads = max(options.threads)
    try:
        return calibrate(model, samples, CalibrateOptions(samples=min(1000, len(samples)), threads=threads), runs=home,
                         report=part(report, "calibrating"))
    except UnsupportedModel as error:
        notes.append(f"INT8 was not tried: {error.what}")
        return None


def _candidates(model: Model, options: SearchOptions, offered: dict[str, tuple[str, ...]],
                calibration: Calibration | None, notes: list[str]) -> tuple[Candidate, ...]:
    for runtime in options.runtimes:
        if runtime not in offered:
            notes.append(f"{runtime} was not tried: it is not installed.")
        lacking = [p for p in ("bf16", "fp16") if p in options.precisions and p not in offered.get(runtime, (p,))]
        if lacking and runtime == "openvino":
            notes.append(f"{' and '.join(lacking).upper()} was not tried: this processor does not compute in it.")
    if calibration is None:
        options = replace(options, precisions=tuple(p for p in options.precisions if p not in INTEGER) or ("fp32",))
    found = space(options, offered, multiplies(model.path))
    if not found:
        raise UnsupportedModel("None of the candidates asked for can run here.", remedy="ask for more runtimes or "
                               "precisions", detail=" ".join(notes))
    return found


def _job(model: Model, samples: Any, calibration: Calibration | None, metric: Any, options: SearchOptions,
         home: Path) -> Job:
    pairs = []
    if calibration is None:
        with open_runner(model) as runner:
            pairs = [(dict(samples[at]), runner(samples[at])) for at in range(min(8, len(samples)))]
    feed = pairs[0][0] if pairs else next(calibration.probes())[0]
    return Job(model, calibration, feed, tuple(pairs), metric, options, home.absolute())


def _default(name: str) -> Any:
    return next(f.default for f in fields(SearchOptions) if f.name == name)


def _metric_digest(metric: Any) -> str:
    if metric is not None and not callable(metric):
        raise BadInput(f"The metric is a {type(metric).__name__}; it must be a function from a runner to a number.",
                       remedy="see kit.evidence.scoring.TaskScore, which makes one of a task and samples")
    try:
        return digest(metric)
    except TypeError as error:
        raise BadInput(f"The metric {type(metric).__name__} cannot be fingerprinted ({error}).",
                       remedy="make it a function of a module, or a frozen dataclass with plain fields") from error


def _metric_name(metric: Any) -> str:
    if metric is None:
        return ""
    return str(getattr(metric, "name", "") or getattr(metric, "__name__", type(metric).__name__))


def _confirm(log: Log, job: Job, allowed: float, executor: Executor | None, report: Report) -> None:
    """Time the best against each other, so that the luck of one trial does not decide; kept beside the log."""
    good = sorted((t for t in log.trials if t.is_accurate(allowed)), key=lambda t: (t.ratio, t.number))
    near = good[: job.options.finalists]
    numbers = [t.number for t in near]
    path = log.folder / CONFIRMED
    if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["numbers"] == numbers:
        return
    measured: dict[int, dict[str, Any]] = {}
    rivals = [t for t in near if t.number]  # the baseline is what they are timed against
    if rivals and (len(near) > 1 or near[0].why):
        try:
            if executor is None:
                measured = run_duel(job, rivals, log.trials[0], part(report, "timing the best against each other"))
            else:
                measured = executor.submit(run_duel, job, rivals, log.trials[0]).result()
        except KitError as error:
            log.say(unconfirmed=error.what)
    replace_text(path, json.dumps({"numbers": numbers, "measured": measured}, indent=1))
