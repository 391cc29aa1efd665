"""verify: does each stage of a migration still give the answers of the first, and which step lost them?

Two yardsticks. Tensors are compared with the first stage's, output by output. A task (detect text, read it) turns
outputs into answers and answers into a few numbers a sample, so that one resampling of the samples gives an interval
for every metric and every difference. A float stage is judged by the tensors, a quantized one by the task: its tensors
must differ, and how much only the task can say.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np

from kit.errors import BadInput, unknown
from kit.evidence.entries import entries, run_name, versions
from kit.evidence.verdict import Change, SampleRow, StageRow, Verdict
from kit.evidence.waterfall import run_stages
from kit.options import Help, Options, Range, expect
from kit.progress import Report, silent
from kit.record import digest, run_stage
from kit.samples import Sample, Samples

__all__ = ["Change", "SampleRow", "StageRow", "Task", "Verdict", "VerifyOptions", "verify"]


@runtime_checkable
class Task(Protocol):
    """What the outputs are for. Make it a frozen dataclass: its fields are part of the result's fingerprint.

    Outputs arrive under the names of the first stage's, whatever the other stages call them.

    A task whose metric does not add up over samples has, in place of ``scores``, a method
    ``judged(tallies, samples) -> Judged`` (see ``kit.evidence.judging``); a tally is then whatever it needs to know of
    an answer, and may differ in length. Two more methods are optional. ``tensors(outputs)`` gives those outputs that
    can be compared number by number, under names that all stages share; answers are then made of the outputs as they
    came. ``why_fewer(precision)`` says the likely cause where a stage finds far fewer things than the first.
    """

    name: str
    better: Literal["higher", "lower"]

    def answer(self, outputs: dict[str, np.ndarray], sample: Sample, feed: dict[str, np.ndarray]) -> Any:
        """What was found: boxes, a text."""

    def count(self, answer: Any) -> int:
        """How many things were found: boxes, characters."""

    def tally(self, answer: Any, sample: Sample) -> tuple[float, ...]:
        """This sample's counts; those of many samples may be added up (unless the task has ``judged``)."""

    def scores(self, totals: tuple[float, ...]) -> dict[str, float]:
        """Metrics of summed tallies; the first one is the main one."""


@dataclass(frozen=True)
class VerifyOptions(Options):
    """How a verification is made and what it forgives."""

    allowed_loss: Annotated[float, Range(0, 1, 0.001), Help(
        "how much of the task's metric a stage may lose against the first")] = 0.01
    samples: Annotated[int, Range(1, 1_000_000, 1), Help(
        "use only so many samples, evenly spaced over the set; all when empty")] | None = None
    confidence: Annotated[float, Range(0.5, 0.999, 0.01), Help("how much the intervals hold")] = 0.95
    resamples: Annotated[int, Range(100, 100_000, 100), Help("how often the samples are drawn anew")] = 2000
    seed: Annotated[int, Range(0, 2**31 - 1, 1), Help("of the resampling")] = 0
    threads: Annotated[int, Range(1, 256, 1), Help("of each runtime")] = 2
    least_snr_db: Annotated[float, Range(0, 120, 1), Help(
        "without a task: signal-to-noise ratio that a quantized stage must keep; 10 dB is a tenth of the power")] = 10.0
    judge_by_task: Annotated[tuple[str, ...], Help(
        "stages whose tensors may differ, besides those found to be quantized or half precision")] = ()
    noise_floor: Annotated[bool, Help(
        "run the first stage once more with one thread and without graph rewriting, to see what rounding alone does"
    )] = False


def verify(
    stages: Mapping[str, Any],
    samples: Samples | Sequence[dict[str, np.ndarray]],
    options: VerifyOptions = VerifyOptions(),
    *,
    task: Task | None = None,
    runs: Path | str | None = None,
    report: Report = silent,
) -> Verdict:
    """Run every stage over the same samples and compare each with the first.

    Args:
        stages: name -> model in the order of the migration: anything ``open_runner`` takes, a pair of that and a
            dictionary of its settings, a function from feeds to outputs (then the verdict is not stored), or what a
            box recorded (``kit.ascend.load_results``; its row is labelled with the device).
        samples: what to run on; a list of feeds will do without a task.
        options: see VerifyOptions.
        task: turns outputs into answers and scores; without one only tensors are compared.

    Raises:
        BadInput: no stages, no samples, outputs that cannot be compared (names the stage and the sample).
    """
    expect(VerifyOptions, options)
    made = entries(stages, "stage")
    for name in options.judge_by_task:
        if name not in stages:
            raise unknown("stage", name, stages, "judge_by_task")
    total = len(samples)
    if not total:
        raise BadInput("There are no samples to verify with.", remedy="give at least one; 100 give useful intervals")
    chosen = evenly(total, options.samples)
    _check_task(task, samples)

    def work(scratch: Path, report: Report) -> Verdict:
        return run_stages(made, samples, chosen, options, task, scratch, report)

    if not all(entry.is_stored for entry in made):
        with tempfile.TemporaryDirectory(prefix="kit-verify-") as scratch:
            return work(Path(scratch), report)
    truths = [item.truth for item in samples.items] if isinstance(samples, Samples) else []
    names = [item.name for item in samples.items] if isinstance(samples, Samples) else []
    inputs = {"stages": [entry.digest() for entry in made], "samples": samples, "names": names,
              "truths": repr(truths) if task else "", "task": _task_digest(task), "versions": versions()}
    return run_stage("verify", Verdict, work, options=options, inputs=inputs, name=run_name(made), runs=runs,
                     version=2, report=report)


def evenly(total: int, limit: int | None) -> list[int]:
    """Numbers of at most ``limit`` of ``total`` samples, spread over the whole set: sets come sorted."""
    if limit is None or limit >= total:
        return list(range(total))
    return [int(at) for at in np.linspace(0, total - 1, limit).round()]


def _check_task(task: Any, samples: Any) -> None:
    if task is None:
        return
    scorer = "judged" if hasattr(task, "judged") else "scores"
    missing = [part for part in ("name", "better", "answer", "count", "tally", scorer) if not hasattr(task, part)]
    if missing:
        raise BadInput(f"{type(task).__name__} is no task: it lacks {', '.join(missing)}.",
                       remedy="see kit.verification.Task; kit.families has ready ones")
    if not isinstance(samples, Samples):
        raise BadInput(f"A task needs Samples with their truths; this is a {type(samples).__name__}.",
                       remedy="make the samples with kit.Samples, or leave the task out")


def _task_digest(task: Any) -> str:
    try:
        return digest(task)
    except TypeError as error:
        raise BadInput(f"The task {type(task).__name__} cannot be fingerprinted ({error}).",
                       remedy="make it a frozen dataclass with plain fields") from error
