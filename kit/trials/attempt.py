"""One trial: build the artefact, time it in turns with the baseline, and measure what it loses.

It runs in a process of its own with a limit of memory and time, so that a candidate that crashes, swells or hangs costs
one line in the log and not the search. What it builds are results of the kit's own stages, which are kept and found
again: two candidates that differ in threads are made of one file.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.benchmarking import BenchmarkOptions, compare, take_turns
from kit.calibration import Calibration
from kit.errors import KitError
from kit.int8.noise import Noise
from kit.model import Model
from kit.progress import Report, Tick, silent
from kit.runner import open_runner
from kit.trials.log import Trial
from kit.trials.space import INTEGER, WEIGHT_ONLY, Candidate, baseline
from kit.worker import Process

if TYPE_CHECKING:
    from kit.searching import SearchOptions

_TURN_MS = 60.0  # one turn of timing lasts about so long: shorter ones are mostly the clock's and the caches' noise
_SLOWER = 1.05  # a candidate surely this much slower than an accurate one is no pick: its loss is not measured
_SENSITIVITY_SECONDS = 120
_WIDE = 1.15  # where the interval's ends are further apart than this, it is timed again: something else was running
_BATCHES, _TIMING_SECONDS = 4, 15  # so often at most, and none begun later than that


@dataclass(frozen=True)
class Job:
    """What all trials of a search have in common; travels to whichever process runs them.

    Attributes:
        model: the float model.
        calibration: of that model; None where it cannot be made INT8.
        feed: what is run to measure the time.
        pairs: feeds and float outputs to compare with, where there is no calibration that keeps some.
        metric: from a runner to a number, larger is better; None to judge by the output's error.
        options: of the search.
        runs: where stages keep their results.
    """

    model: Model
    calibration: Calibration | None
    feed: dict[str, np.ndarray] = field(repr=False)
    pairs: tuple[tuple[dict[str, np.ndarray], dict[str, np.ndarray]], ...] = field(repr=False)
    metric: Any
    options: SearchOptions
    runs: Path


@dataclass(frozen=True)
class Ask:
    """What a trial is to do.

    Attributes:
        number: the trial's.
        candidate: what to try.
        baseline: the baseline's trial; None when this is it.
        bar: ratio that the fastest accurate one so far surely has; the loss of a candidate that is surely slower is not
            measured. None: measure all.
        known: a trial with the same file and precision whose loss holds for this one too.
    """

    number: int
    candidate: Candidate
    baseline: Trial | None = None
    bar: float | None = None
    known: Trial | None = None


@dataclass(frozen=True)
class Loss:
    """How accurate something is; see the fields of the same names in ``Trial``."""

    loss: float
    score: float
    samples: int
    complete: bool
    first: float | None = None


def run_trial(job: Job, ask: Ask, report: Report = silent) -> Trial:
    """Do a trial in a process of its own; whatever goes wrong there is in the trial that comes back."""
    began = time.monotonic()
    limit = job.options.trial_seconds

    def watch(tick: Tick) -> None:
        report(tick)
        if time.monotonic() - began > limit:
            raise _TooLong

    failed = functools.partial(Trial, ask.number, ask.candidate, "failed")
    peak = 0
    try:
        with Process(memory_limit=_memory_limit(job.options)) as process:
            try:
                trial = process.call(attempt, job, ask, report=watch, pass_report=True)
            finally:
                peak = process.peak_memory
    except _TooLong:
        trial = failed(why=f"not done within {limit} seconds")
    except KitError as error:
        trial = failed(why=error.what)
    return replace(trial, memory=max(peak, trial.memory), seconds=round(time.monotonic() - began, 3))


class _TooLong(Exception):
    pass


def attempt(job: Job, ask: Ask, report: Report = silent) -> Trial:
    """Do a trial in this process.

    Raises:
        KitError: it cannot be built, opened or run.
    """
    from kit.runtimes import peak_memory

    report(Tick(0, 3, f"building {ask.candidate.label}"))
    artifact = build(job, ask.candidate, report)
    trial = Trial(ask.number, ask.candidate, "measured", artifact=artifact, size=_size(artifact))
    report(Tick(1, 3, f"timing {ask.candidate.label}"))
    with open_runner(artifact, **ask.candidate.runner_settings) as own:
        if ask.baseline is None:
            times = _turns({"own": own}, job)["own"]
            trial = replace(trial, ratio=1.0, low=1.0, high=1.0, ms=float(np.median(times)),
                            baseline_ms=float(np.median(times)))
        else:
            with open_runner(job.model, **baseline(job.options).runner_settings) as base:
                trial = replace(trial, **ratios({"baseline": base, "own": own}, job)["own"])
        if ask.bar is not None and trial.low > ask.bar * _SLOWER:
            why = "slower than one that is accurate enough, so what it loses was not measured"
            return replace(trial, state="slower", why=why, memory=peak_memory())
        report(Tick(2, 3, f"measuring the loss of {ask.candidate.label}"))
        if ask.known is not None:
            same = ask.known
            trial = replace(trial, loss=same.loss, score=same.score, samples=same.samples, complete=same.complete,
                            why=f"the loss is that of trial {same.number}: the same file, run otherwise")
        else:
            trial = replace(trial, **vars(loss(own, job, ask.baseline)))
    return replace(trial, memory=peak_memory())


def duel(job: Job, trials: Sequence[Trial], first: Trial) -> dict[int, dict[str, Any]]:
    """Time several trials' artefacts against each other in turns, and measure the losses that were taken over.

    Args:
        job: of the search.
        trials: which; not the baseline, which is timed beside them.
        first: the baseline's trial.

    Returns:
        Number of each trial -> fields of Trial, measured anew.
    """
    import contextlib

    with contextlib.ExitStack() as stack:
        runners = {"baseline": stack.enter_context(open_runner(job.model, **baseline(job.options).runner_settings))}
        for trial in trials:
            runners[trial.number] = stack.enter_context(
                open_runner(trial.artifact, **trial.candidate.runner_settings))
        found = ratios(runners, job)
        for trial in trials:
            if trial.why:
                found[trial.number] |= vars(loss(runners[trial.number], job, first)) | {"why": ""}
    return found


def run_duel(job: Job, trials: Sequence[Trial], first: Trial, report: Report = silent) -> dict[int, dict[str, Any]]:
    """``duel`` in a process of its own.

    Raises:
        KitError: it failed there.
    """
    with Process(memory_limit=_memory_limit(job.options)) as process:
        return process.call(duel, job, tuple(trials), first, report=report)


def build(job: Job, candidate: Candidate, report: Report = silent) -> Path:
    """The model file of a candidate; made by the kit's stages, or found where they kept it."""
    from kit.quantization import QuantizeOptions, quantize

    if candidate.precision in WEIGHT_ONLY:
        options = QuantizeOptions(precision=candidate.precision, runtime=candidate.runtime)
        return quantize(job.model, None, options, runs=job.runs, report=report).model.path
    if candidate.precision not in INTEGER:
        return job.model.path
    options = QuantizeOptions(method=candidate.method, runtime=candidate.runtime,
                              keep_float=_dearest(job, candidate.keep, report))
    return quantize(job.model, job.calibration, options, runs=job.runs, report=report).model.path


def _dearest(job: Job, groups: int, report: Report) -> tuple[str, ...]:
    """The nodes of so many groups that cost most accuracy in INT8."""
    from kit.layers import SensitivityOptions, sensitivity, suggest_float

    if not groups:
        return ()
    ranking = sensitivity(job.model, job.calibration, None, SensitivityOptions(seconds=_SENSITIVITY_SECONDS),
                          runs=job.runs, report=report)
    return suggest_float(ranking, groups=groups)


def ratios(runners: Mapping[Any, Any], job: Job) -> dict[Any, dict[str, Any]]:
    """Time runners in turns against the first.

    Returns:
        For every one but the first: ``ratio``, ``low``, ``high``, ``ms`` and ``baseline_ms``, as in ``Trial``.
    """
    batches, began = [], time.monotonic()
    while True:
        batches.append(_turns(runners, job, batches[0] if batches else None))
        times = {name: np.concatenate([batch[name] for batch in batches]) for name in runners}
        timings = compare(times, BenchmarkOptions())
        sure = all(timing.high / timing.low < _WIDE for timing in timings[1:])
        if sure or len(batches) == _BATCHES or time.monotonic() - began > _TIMING_SECONDS:
            break
    base = timings[0].p50_ms
    return {timing.name: {"ratio": 1 / timing.speedup, "low": 1 / timing.high, "high": 1 / timing.low,
                          "ms": timing.p50_ms, "baseline_ms": base} for timing in timings[1:]}


def _turns(runners: Mapping[Any, Any], job: Job,
           before: Mapping[Any, np.ndarray] | None = None) -> dict[Any, np.ndarray]:
    """Times of one batch of rounds; as many runs a turn as in the batch ``before``, or as fill a turn."""
    if before is None:
        slowest = 0.0
        for runner in runners.values():
            runner.time(job.feed, 2)
            slowest = max(slowest, float(np.median(runner.time(job.feed, 3))))
        count = int(np.clip(np.ceil(_TURN_MS / slowest), 2, 50))
    else:
        count = next(iter(before.values())).shape[1]
    return take_turns(runners, [job.feed], BenchmarkOptions(rounds=job.options.rounds, runs=count))


def loss(runner: Any, job: Job, first: Trial | None) -> Loss:
    """What a runner loses against float.

    With a metric that can be measured on fewer samples (it has ``subset(count)``), those come first, and where they
    leave no doubt they are all.

    Args:
        runner: an open one.
        job: of the search.
        first: the baseline's trial; None when ``runner`` is the baseline.
    """
    if job.metric is None:
        noise = Noise()
        pairs = list(job.calibration.probes()) if job.calibration else list(job.pairs)
        for feeds, outputs in pairs:
            noise.add(outputs, runner(feeds))
        decibels = noise.decibels()
        return Loss(10 ** (-decibels / 10), decibels, len(pairs), True)
    count = job.options.first
    total = len(job.metric) if hasattr(job.metric, "__len__") else 0
    few = job.metric.subset(count) if hasattr(job.metric, "subset") and total > 2 * count else None
    few_score = float(few(runner)) if few else None
    if few and first is not None and first.first is not None:
        lost = first.first - few_score
        # A few samples say little: only a loss that more of them cannot make good counts.
        if lost > 3 * job.options.loss + 1.5 / count:
            return Loss(lost, few_score, count, False, few_score)
    score = float(job.metric(runner))
    return Loss(0.0 if first is None else first.score - score, score, total, True, few_score)


def _size(artifact: Path) -> int:
    return Model.open(artifact).size


def _memory_limit(options: SearchOptions) -> int:
    import psutil

    return options.memory_limit_mb * 1_000_000 or int(0.9 * psutil.virtual_memory().available)
