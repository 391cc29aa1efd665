"""benchmark: which of these is faster, by how much, and is that more than noise?

Every candidate lives in a process of its own and is timed there; they take turns (A B A B), so that a machine that
slows down slows all of them. What is compared is the median of one candidate against that of the first one over the
same rounds, with an interval from resampling whole rounds. When the interval holds 1, no difference was shown.

What a box measured is shown beside them and compared with nothing: it was neither this machine nor these rounds.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from kit.ascend.box.recorded import FAKE, RecordedTiming
from kit.ascend.box.recorded import timings as recorded_timings
from kit.card import Card, Table, bytes_text
from kit.errors import BadInput, unknown
from kit.evidence import bootstrap
from kit.evidence.entries import Entry, entries, run_name, versions
from kit.evidence.feeding import fitted
from kit.int8.processor import this_processor
from kit.options import Help, Options, Range, expect
from kit.progress import Report, silent, track
from kit.record import Provenance, run_stage


@dataclass(frozen=True)
class BenchmarkOptions(Options):
    """How candidates are timed and when the machine counts as noisy."""

    rounds: Annotated[int, Range(5, 10_000, 1), Help("turns that each candidate gets")] = 20
    runs: Annotated[int, Range(1, 10_000, 1), Help("timed runs in a turn")] = 5
    warm_up: Annotated[int, Range(1, 1000, 1), Help("untimed runs before the first round; each turn has one more")] = 5
    threads: Annotated[int, Range(1, 256, 1), Help("of each candidate")] = 2
    # Seen on 2 cores: ONNX Runtime's threads spin for about 30 ms after a run and rest 100 ms later; Paddle's take
    # most of a core for over 0.3 s, but rest at once under the environment that kit.runner gives its workers.
    pause_ms: Annotated[int, Range(0, 5000, 10), Help(
        "wait before each turn, so that the last candidate's idle threads stop spinning")] = 50
    inputs: Annotated[int, Range(1, 10_000, 1), Help(
        "how many of the samples take turns as input; with one, the spread is the machine's and not the data's")] = 1
    confidence: Annotated[float, Range(0.5, 0.999, 0.01), Help("how much the intervals hold")] = 0.95
    resamples: Annotated[int, Range(100, 100_000, 100), Help("how often the rounds are drawn anew")] = 2000
    seed: Annotated[int, Range(0, 2**31 - 1, 1), Help("of the resampling")] = 0
    alarm_drift: Annotated[float, Range(0.01, 10, 0.01), Help(
        "alarm when the medians of the first and the second half differ by more than this share")] = 0.1
    alarm_spread: Annotated[float, Range(1.01, 100, 0.01), Help(
        "alarm when the 95th percentile is more than so many times the median")] = 1.5
    alarm_busy: Annotated[float, Range(0.01, 1, 0.01), Help(
        "alarm when so much of the processor is busy while no candidate runs")] = 0.15
    repeat: Annotated[int, Range(0, 1_000_000, 1), Help(
        "raise it to measure again: a stored result is shown otherwise")] = 0


@dataclass(frozen=True)
class Timing:
    """One candidate's times.

    Attributes:
        name: of the candidate.
        times_ms: milliseconds, [rounds][runs].
        p50_ms: median of all runs.
        p95_ms: 95th percentile of all runs.
        fps: inputs a second, from the median.
        memory: bytes, the highest resident memory of its process; 0 where it was not isolated.
        size: bytes on disk; 0 for a function.
        speedup: the baseline's median over this one's, over the same rounds; 2 means twice as fast.
        low: end of the interval of the speed-up.
        high: the other end.
        verdict: what the interval shows.
        drift: median of the second half of the rounds over that of the first.
        settings: of the runner, as it ran.
        notes: what went differently, such as a retry without oneDNN.
    """

    name: str
    times_ms: tuple[tuple[float, ...], ...] = field(repr=False)
    p50_ms: float
    p95_ms: float
    fps: float
    memory: int
    size: int
    speedup: float
    low: float
    high: float
    verdict: Literal["baseline", "faster", "slower", "no difference shown"]
    drift: float
    settings: dict[str, str]
    notes: tuple[str, ...]

    def words(self) -> str:
        """``2.31x as fast [2.25, 2.40]``."""
        return {"baseline": "baseline", "no difference shown": f"no difference shown [{self.low:.2f}, {self.high:.2f}]"
                }.get(self.verdict, f"{self.speedup:.2f}x as fast [{self.low:.2f}, {self.high:.2f}]")


@dataclass(frozen=True)
class Benchmark(Card):
    """Candidates timed in turns.

    Attributes:
        timings: one a candidate; the first is the baseline.
        rounds: turns of each.
        runs: timed runs in a turn.
        threads: of each candidate.
        confidence: of the intervals.
        feeds: what was fed, as ``x float32[1, 3, 640, 640]``.
        machine: processor, cores and load when it began.
        alarms: why the figures are to be taken with care; empty on a quiet machine.
        provenance: where it comes from; None when a candidate was no file, whose result is not stored.
        recorded: what a box measured, one a batch size; no part of the comparison.
    """

    timings: tuple[Timing, ...]
    rounds: int
    runs: int
    threads: int
    confidence: float
    feeds: str
    machine: dict[str, str]
    alarms: tuple[str, ...]
    provenance: Provenance | None = field(default=None, compare=False)
    recorded: tuple[RecordedTiming, ...] = ()

    def timing(self, name: str) -> Timing:
        """The times of a candidate.

        Raises:
            BadInput: there is none of that name.
        """
        for timing in self.timings:
            if timing.name == name:
                return timing
        raise unknown("candidate", name, [timing.name for timing in self.timings], "this benchmark")

    @property
    def fastest(self) -> Timing:
        """The one with the lowest median."""
        return min(self.timings, key=lambda timing: timing.p50_ms)

    def title(self) -> str:
        base, *others = self.timings
        noisy = " (noisy machine: see the alarms)" if self.alarms else ""
        if not others:
            return f"{base.name}: {base.p50_ms:.2f} ms a run{noisy}"
        best = min(others, key=lambda timing: timing.p50_ms)
        if best.verdict == "no difference shown":
            return f"No difference shown between {best.name} and {base.name}{noisy}"
        ends = f"{best.speedup:.2f} times as fast [{best.low:.2f}, {best.high:.2f}]"
        if best.verdict == "slower":
            return f"{base.name} is the fastest: {best.name}, the next, is {ends}{noisy}"
        return f"{best.name} is {ends} as {base.name}{noisy}"

    def facts(self) -> dict[str, object]:
        return {
            "input": self.feeds,
            "turns": f"{self.rounds} rounds of {self.runs} runs each, {self.threads} threads, each in its own process",
            "intervals": f"{self.confidence:.0%}, from resampling the rounds; 1 inside means no difference shown",
            **self.machine,
            **{f"alarm {n}": alarm for n, alarm in enumerate(self.alarms, start=1)},
            **{f"note on {timing.name}": " ".join(timing.notes) for timing in self.timings if timing.notes},
            **{f"note on {row.name}": row.where for row in self.recorded},
        }

    def tables(self) -> tuple[Table, ...]:
        rows = tuple((t.name, f"{t.p50_ms:.2f}", f"{t.p95_ms:.2f}", f"{t.fps:.1f}",
                      bytes_text(t.memory) if t.memory else "-", bytes_text(t.size) if t.size else "-", t.words())
                     for t in self.timings)
        rows += tuple((r.name, *r.row(), "-", bytes_text(r.size) if r.size else "-", r.where) for r in self.recorded)
        names = sorted({name for timing in self.timings for name in timing.settings})
        settings = tuple((t.name, *(t.settings.get(name, "-") for name in names)) for t in self.timings)
        return (Table(f"Latency, against {self.timings[0].name}", (
            "candidate", "p50 ms", "p95 ms", "FPS", "peak memory", "size", "verdict"), rows),
            *([Table("Settings", ("candidate", *names), settings)] if names else []))


def benchmark(
    runners: Mapping[str, Any],
    feeds: Mapping[str, np.ndarray] | Sequence[dict[str, np.ndarray]],
    options: BenchmarkOptions = BenchmarkOptions(),
    *,
    runs: Path | str | None = None,
    report: Report = silent,
) -> Benchmark:
    """Time candidates in turns and compare each with the first.

    Args:
        runners: name -> model: anything ``open_runner`` takes, or a pair of that and a dictionary of its settings,
            such as ``{"graph_level": "none"}``. An object with ``time(feeds, runs) -> milliseconds`` is used as it
            is, in this process (then the result is not stored). What a box recorded (``kit.ascend.load_results``) is
            shown as it was measured there and compared with nothing.
        feeds: the input, or Samples (the first ``options.inputs`` of them take turns); those after the
            first get it under their own input's name and in their own layout, see ``kit.evidence.feeding``.
        options: see BenchmarkOptions. A stored result is shown unless ``repeat`` is raised.

    Raises:
        BadInput: no candidates, no feeds, or a feed that does not fit; names it.
    """
    expect(BenchmarkOptions, options)
    made = entries(runners, "candidate")
    if made[0].device:
        raise BadInput(f"{made[0].name!r} was recorded on a box: it cannot be what others are timed against.",
                       remedy="put a model that runs here first; the box's times are shown beside it")
    fed = [dict(feeds)] if isinstance(feeds, Mapping) else [feeds[at] for at in range(min(len(feeds), options.inputs))]
    if not fed or not all(fed):
        raise BadInput("There is nothing to feed to the candidates.", remedy="give a feed or Samples with one at least")

    optional = getattr(feeds, "scale_factor", "")

    def work(scratch: Path, report: Report) -> Benchmark:
        return _benchmark(made, fed, options, report, optional)

    if not all(entry.is_stored and (entry.source or entry.device) for entry in made):
        return work(Path(), report)
    inputs = {"candidates": [entry.digest() for entry in made], "feeds": fed, "versions": versions(),
              # Times belong to a machine: a result copied from another one is not this one's.
              "machine": [this_processor().name, os.cpu_count()]}
    return run_stage("benchmark", Benchmark, work, options=options, inputs=inputs, name=run_name(made), runs=runs,
                     report=report)


def _benchmark(given: Sequence[Entry], fed: list[dict[str, np.ndarray]], options: BenchmarkOptions,
               report: Report, optional: str) -> Benchmark:
    made = [entry for entry in given if not entry.device]
    with contextlib.ExitStack() as opened:
        candidates = {}
        for entry in track(made, report, note="opening and warming up"):
            runner = opened.enter_context(entry.open(threads=options.threads, isolated=True))
            if FAKE in str(getattr(runner, "settings", {}).get("runtime", "")):
                raise BadInput(f"{entry.name!r} is run by {runner.settings['runtime']}: its times say nothing.",
                               remedy="leave it out; kit.verify takes it")
            # The first one takes the feed as it is: a name that is wrong there is a mistake.
            fits = bool(candidates or optional)
            own = _Fed(runner, [(feed, fitted(feed, runner, optional) if fits else feed) for feed in fed])
            with entry.naming():
                for feed in fed:
                    own.time(feed, max(1, options.warm_up))
            candidates[entry.name] = own
        busy, load = busy_share(), load_average()
        times = take_turns(candidates, fed, options, report)
        about = {entry.name: _about(entry, candidates[entry.name].runner) for entry in made}
    timings = compare(times, options, about)
    return Benchmark(
        timings=timings, rounds=options.rounds, runs=options.runs, threads=options.threads,
        confidence=options.confidence, feeds=_feeds_text(fed), machine=machine_facts(busy, load),
        alarms=(*busy_alarm(busy, load, options), *noise_alarms(timings, options)),
        recorded=tuple(row for entry in given if entry.device
                       for row in recorded_timings(entry.name, entry.thing.results)))


class _Fed:
    """A runner that gets each feed as it takes it; made ready beforehand, so that it costs no time of a turn."""

    def __init__(self, runner: Any, pairs: Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]) -> None:
        self.runner = runner
        self._own = {id(feed): own for feed, own in pairs}

    def time(self, feed: Mapping[str, np.ndarray], runs: int) -> Sequence[float]:
        return self.runner.time(self._own[id(feed)], runs)


def take_turns(candidates: Mapping[str, Any], fed: Sequence[dict[str, np.ndarray]], options: BenchmarkOptions,
               report: Report = silent, sleep: Callable[[float], None] = time.sleep) -> dict[str, np.ndarray]:
    """Time candidates A B A B.

    Args:
        candidates: name -> object with ``time(feeds, runs)`` that returns milliseconds.
        fed: the feeds; rounds go through them in turn, all candidates of a round get the same one.

    Returns:
        Name -> float64 [rounds, runs], milliseconds.
    """
    times: dict[str, list[list[float]]] = {name: [] for name in candidates}
    for turn in track(range(options.rounds), report, note="timing in turns"):
        feed = fed[turn % len(fed)]
        for name, runner in candidates.items():
            sleep(options.pause_ms / 1000)
            # One run more than is kept: after a pause the caches are cold and the clock may be low.
            times[name].append(list(runner.time(feed, options.runs + 1))[1:])
    return {name: np.array(rows, np.float64) for name, rows in times.items()}


def compare(times: Mapping[str, np.ndarray], options: BenchmarkOptions,
            about: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[Timing, ...]:
    """Statistics of times, [rounds, runs] each, against the first; ``about`` holds the other fields of Timing."""
    base = next(iter(times.values()))
    made = []
    for name, own in times.items():
        first = own is base
        ratios = None if first else bootstrap.median_ratios(base, own, options.resamples, options.seed)
        low, high = (1.0, 1.0) if ratios is None else bootstrap.interval(ratios, options.confidence)
        p50, p95 = np.percentile(own, [50, 95]).tolist()
        half = len(own) // 2
        extra = {"memory": 0, "size": 0, "settings": {}, "notes": (), **(about or {}).get(name, {})}
        made.append(Timing(
            name=name, times_ms=tuple(tuple(round(v, 5) for v in row) for row in own.tolist()), p50_ms=p50, p95_ms=p95,
            fps=1000 / p50, speedup=float(np.median(base) / p50), low=low, high=high,
            verdict="baseline" if first else "faster" if low > 1 else "slower" if high < 1 else "no difference shown",
            drift=float(np.median(own[-half:]) / np.median(own[:half])), **extra))
    return tuple(made)


def noise_alarms(timings: Sequence[Timing], options: BenchmarkOptions) -> tuple[str, ...]:
    """Signs in the times themselves that the machine did other things."""
    drifting = [f"{t.name} {t.drift:.2f}x" for t in timings if abs(t.drift - 1) > options.alarm_drift]
    uneven = [f"{t.name} {t.p95_ms / t.p50_ms:.1f}x" for t in timings if t.p95_ms / t.p50_ms > options.alarm_spread]
    return (*([f"drift, time of the second half of the rounds over the first's: {', '.join(drifting)}"]
              if drifting else []),
            *([f"uneven times, 95th percentile over median: {', '.join(uneven)}"] if uneven else []))


def busy_alarm(busy: float, load: float | None, options: BenchmarkOptions) -> tuple[str, ...]:
    """A sentence where too much of the processor was in use before the first round, as ``busy_share`` says."""
    if busy <= options.alarm_busy:
        return ()
    words = f", load average {load:.1f} on {os.cpu_count()} cores" if load is not None else ""
    return (f"the machine was busy before the first round: {busy:.0%} of the processor was used by something else"
            f"{words}. Runtimes whose threads wait busily suffer most, so even the ratios may turn: close other "
            "programs and raise repeat",)


def busy_share(seconds: float = 0.5) -> float:
    """Share (0 to 1) of the whole processor in use over a moment in which no candidate runs."""
    import psutil

    return psutil.cpu_percent(interval=seconds) / 100


def load_average() -> float | None:
    """Mean number of processes that wanted to run in the last minute; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def machine_facts(busy: float, load: float | None) -> dict[str, str]:
    """Processor, and how busy it was, for a card."""
    return {"processor": f"{this_processor().name}, {os.cpu_count()} cores", "busy before": f"{busy:.0%}",
            **({"load average before": f"{load:.2f}"} if load is not None else {})}


def _about(entry: Entry, runner: Any) -> dict[str, Any]:
    return {"memory": int(runner.memory()) if hasattr(runner, "memory") else 0, "size": entry.size,
            "settings": entry.settings_of(runner),
            "notes": tuple(map(str, getattr(runner, "notes", ())))}


def _feeds_text(fed: Sequence[Mapping[str, np.ndarray]]) -> str:
    texts = {"; ".join(f"{name} {np.asarray(a).dtype}{list(np.shape(a))}" for name, a in feed.items()) for feed in fed}
    return " · ".join(sorted(texts)[:4]) + (f" and {len(texts) - 4} more shapes" if len(texts) > 4 else "")
