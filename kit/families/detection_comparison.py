"""A detector in several frameworks, compared in one call: mean average precision with intervals, and what changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kit.card import Card, Table
from kit.errors import BadInput, unknown
from kit.evidence import bootstrap
from kit.families.detection_changes import KINDS, PictureChange, change
from kit.families.detection_metrics import MAIN, STRICT, class_score
from kit.families.detection_tasks import DetectionTask, rows_of
from kit.progress import Report, silent
from kit.samples import Samples
from kit.verification import Verdict, VerifyOptions, verify


@dataclass(frozen=True)
class Difference:
    """A metric of a stage minus that of the first, with its interval; NaN where there is none."""

    value: float
    low: float
    high: float

    def words(self, confidence: float) -> str:
        """``-0.007, 95% interval -0.015 to 0.001``."""
        if np.isnan(self.low):
            return f"{signed(self.value)}, no interval"
        return f"{signed(self.value)}, {confidence:.0%} interval {signed(self.low)} to {signed(self.high)}"


@dataclass(frozen=True)
class StageScores:
    """One stage: its metrics, and how far each is from the first stage's (empty for the first)."""

    name: str
    scores: dict[str, float]
    differences: dict[str, Difference]


@dataclass(frozen=True)
class Comparison(Card):
    """What ``compare`` returns; true where no stage lost more than is allowed.

    Attributes:
        stages: in order, the first is what the others are compared with.
        verdict: what ``kit.verify`` made of it, kept with the results.
        samples: the pictures, for a browser of what changed.
        task: how detections were made and scored.
    """

    stages: tuple[StageScores, ...]
    verdict: Verdict = field(repr=False)
    samples: Samples = field(repr=False)
    task: DetectionTask = field(repr=False)

    def __bool__(self) -> bool:
        return bool(self.verdict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.task.heads.classes

    def title(self) -> str:
        """The comparison in one line."""
        confidence = self.verdict.confidence
        said = []
        for stage in self.stages:
            more = f" (difference {stage.differences[MAIN].words(confidence)})" if stage.differences else ""
            said.append(f"{stage.name} {number(stage.scores[MAIN])}{more}")
        return f"{MAIN}: {', '.join(said)}"

    def facts(self) -> dict[str, object]:
        verdict = self.verdict
        used = f"{verdict.samples}" if verdict.samples == verdict.of else f"{verdict.samples} of {verdict.of}"
        return {
            **{f"ALARM {n}": alarm for n, alarm in enumerate(verdict.alarms, start=1)},
            "verdict": verdict.title(),
            "pictures": used,
            STRICT: ", ".join(f"{stage.name} {number(stage.scores[STRICT])}" for stage in self.stages),
            "found": f"{', '.join(f'{row.name} {row.found}' for row in verdict.rows)}, with a score of "
                     f"{self.task.shown:g} or more",
        }

    def tables(self) -> tuple[Table, ...]:
        first, *others = self.stages
        columns = ("class", "true", first.name, *(part for stage in others for part in (
            stage.name, "difference", f"{self.verdict.confidence:.0%} interval")))
        there = Counter(kind for row in self.verdict.answers for kind in self.samples.items[row.at].truth.classes)
        rows = tuple((name, there[at], number(first.scores[class_score(name)]), *(
            part for stage in others for part in _cells(stage, class_score(name))))
            for at, name in enumerate(self.classes))
        tables = [Table("AP@0.5 of each class", columns, rows)]
        for stage in others:
            counts = self.counts(stage.name)
            tables.append(Table(
                f"What changed, {first.name} -> {stage.name} (score {self.task.shown:g} or more)", ("class", *KINDS),
                tuple((name, *(counts[kind][at] for kind in KINDS)) for at, name in enumerate(self.classes))))
        return tuple(tables)

    def changes(self, stage: str | None = None, against: str | None = None) -> tuple[PictureChange, ...]:
        """Every picture, what changed most first.

        Args:
            stage: whose detections to look at; the last by default.
            against: the stage to compare with; the first by default.

        Raises:
            BadInput: there is none of that name.
        """
        names = [each.name for each in self.stages]
        stage, against = stage or names[-1], against or names[0]
        for name in (stage, against):
            if name not in names:
                raise unknown("stage", name, names, "this comparison")
        found = [change(row.at, row.name, rows_of(row.tallies[against]), rows_of(row.tallies[stage]), self.task.shown)
                 for row in self.verdict.answers]
        return tuple(sorted(found, key=lambda each: (-each.amount, each.at)))

    def counts(self, stage: str | None = None, against: str | None = None) -> dict[str, Counter[int]]:
        """``lost``, ``new`` and ``moved`` -> how many of each class; arguments as of ``changes``."""
        found = self.changes(stage, against)
        return {kind: Counter(picture.class_of(each) for picture in found for each in getattr(picture, kind))
                for kind in KINDS}


def compare(
    stages: Mapping[str, Any],
    samples: Samples,
    task: DetectionTask,
    options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    *,
    runs: Path | str | None = None,
    report: Report = silent,
) -> Comparison:
    """Compare a detector over frameworks, runtimes and precisions on the same pictures.

    Args:
        stages: name -> model, as ``kit.verify`` takes them; the first is what the others are compared with. Each may
            answer in its own form, take its pictures as NCHW or NHWC, and have a scale factor or none.
        samples: pictures with their truths, see ``detection_tasks.images``.
        task: how outputs become detections.
        options: of the verification.
        runs: where the verdict is kept.
        report: hears the progress.

    Raises:
        BadInput: no stages, no pictures, or outputs of no known form; names the stage and the picture.
        MissingTool: pycocotools is not installed.
    """
    if not isinstance(task, DetectionTask):
        raise BadInput(f"Detectors are compared by a DetectionTask; this is a {type(task).__name__}.",
                       remedy="give DetectionTask(Heads.read(model))")
    verdict = verify(stages, samples, options, task=task, runs=runs, report=report)
    items = [samples.items[row.at] for row in verdict.answers]
    made, base = [], None
    for row in verdict.rows:
        records = task.judged([answer.tallies[row.name] for answer in verdict.answers], items)
        drawn = bootstrap.scores(records, len(items), options.resamples, options.seed) if len(items) > 1 else None
        differences = {}
        if base is not None:
            for at, (name, value) in enumerate(row.scores.items()):
                gaps = np.full(1, np.nan) if drawn is None else drawn[:, at] - base[1][:, at]
                differences[name] = Difference(value - base[0][name], *bootstrap.interval(gaps, options.confidence))
        base = base or (row.scores, drawn)
        made.append(StageScores(row.name, row.scores, differences))
    return Comparison(tuple(made), verdict, samples, task)


def number(value: float) -> str:
    """Three decimals; a dash for a class that is not there."""
    return "-" if np.isnan(value) else f"{value:.3f}"


def signed(value: float) -> str:
    """Three decimals, without a minus before a zero."""
    return f"{round(value, 3) + 0.0:.3f}"


def _cells(stage: StageScores, name: str) -> tuple[str, str, str]:
    gap = stage.differences[name]
    if np.isnan(gap.value):
        return number(stage.scores[name]), "-", "-"
    ends = "-" if np.isnan(gap.low) else f"{signed(gap.low)} to {signed(gap.high)}"
    return number(stage.scores[name]), signed(gap.value), ends
