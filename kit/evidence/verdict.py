"""What verify answers: the stage waterfall, with every sample's answers for a browser of failures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kit.card import Card, Table, bytes_text
from kit.comparison import TensorParity, worst
from kit.errors import unknown
from kit.record import Provenance

FEW = 20  # samples below which an interval is called rough


@dataclass(frozen=True)
class Change:
    """A difference of the main metric between two stages over the same samples.

    Attributes:
        against: the other stage's name.
        loss: how much worse this stage is, in the metric's unit; below zero it is better.
        low: end of the interval of the loss; None with a single sample.
        high: the other end.
    """

    against: str
    loss: float
    low: float | None = None
    high: float | None = None

    @property
    def is_noise(self) -> bool:
        """Whether other samples might as well have shown no loss."""
        return self.low is None or self.high is None or self.low <= 0 <= self.high

    def __str__(self) -> str:
        if self.loss == 0 and not self.low and not self.high:
            return "no change"
        verb, sign = ("lost", 1) if self.loss > 0 else ("gained", -1)
        ends = "" if self.low is None or self.high is None else " [{:.3f}, {:.3f}]".format(
            *(round(v, 9) + 0.0 for v in sorted((sign * self.low, sign * self.high))))
        return f"{verb} {abs(self.loss):.3f}{ends}" + ("; within noise" if self.is_noise else "")


@dataclass(frozen=True)
class StageRow:
    """One stage of the waterfall.

    Attributes:
        name: of the stage.
        status: ``reference``; ``equal``, ``warning`` or ``kept`` (all good enough); ``lost``.
        why: a sentence for the status.
        runtime: what it ran on.
        precision: of the numbers inside.
        size: bytes on disk, 0 for a function.
        parity: outputs against the first stage's; empty for the first.
        snr_db: signal-to-noise ratio of the worst output against the first stage, in decibels; None for the first.
        scores: the task's metrics, the main one first; empty without a task.
        interval: of the main metric; None without a task or with one sample.
        change: of the main metric against the first stage.
        step: the same against the stage before.
        found: how many things were found in all samples; None without a task.
        alarms: what cannot be right, whatever the metrics say.
        settings: of the runner, as it ran.
        notes: what went differently, such as a retry without oneDNN.
        seconds: how long its samples took, preprocessing and scoring included.
        device: where its answers were recorded; "" for what ran here.
    """

    name: str
    status: Literal["reference", "equal", "warning", "kept", "lost"]
    why: str
    runtime: str
    precision: Literal["float", "half", "quantized", "unknown"]
    size: int
    parity: tuple[TensorParity, ...]
    snr_db: float | None
    scores: dict[str, float]
    interval: tuple[float, float] | None
    change: Change | None
    step: Change | None
    found: int | None
    alarms: tuple[str, ...]
    settings: dict[str, str]
    notes: tuple[str, ...]
    seconds: float
    device: str = ""


@dataclass(frozen=True)
class SampleRow:
    """What every stage made of one sample; dictionaries have the stages' names as keys.

    Attributes:
        at: its number in the samples given to verify.
        name: of the sample.
        tallies: the task's counts, or whatever else it notes of an answer.
        scores: main metric of this sample alone; NaN where it is not defined.
        found: how many things were found.
        snr_db: of the worst output against the first stage; no entry where no output could be compared.
        texts: the answers, for a task whose answers are texts.
    """

    at: int
    name: str
    tallies: dict[str, tuple[float, ...]]
    scores: dict[str, float]
    found: dict[str, int]
    snr_db: dict[str, float]
    texts: dict[str, str]


@dataclass(frozen=True)
class Verdict(Card):
    """The stage waterfall. True when no stage lost more than is allowed and none raised an alarm that counts.

    Attributes:
        rows: the stages in order; the first is the reference.
        metric: name of the task's main metric; "" without a task.
        better: which way it is better.
        answers: every sample under every stage, for a browser of failures.
        samples: how many samples were used.
        of: how many there were.
        confidence: of the intervals.
        allowed_loss: as in the options.
        noise_floor: the first stage against itself under other settings; empty when not asked for.
        provenance: where it comes from; None when a stage was a plain function, whose result is not stored.
    """

    rows: tuple[StageRow, ...]
    metric: str
    better: Literal["higher", "lower"]
    answers: tuple[SampleRow, ...] = field(repr=False)
    samples: int
    of: int
    confidence: float
    allowed_loss: float
    noise_floor: tuple[TensorParity, ...] = ()
    provenance: Provenance | None = field(default=None, compare=False)

    def __bool__(self) -> bool:
        return not self.where

    @property
    def where(self) -> str:
        """Name of the stage that lost the answers first; "" when none did."""
        return next((row.name for row in self.rows if row.status == "lost"), "")

    @property
    def alarms(self) -> tuple[str, ...]:
        """All stages' alarms, each with the stage's name."""
        return tuple(f"{row.name}: {alarm}" for row in self.rows for alarm in row.alarms)

    def stage(self, name: str) -> StageRow:
        """The row of a stage.

        Raises:
            BadInput: there is none of that name.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise unknown("stage", name, [row.name for row in self.rows], "this verdict")

    def changed(self, stage: str, against: str | None = None, limit: int = 10) -> list[SampleRow]:
        """The samples whose answers changed most for the worse, the worst first.

        Args:
            stage: whose answers to look at.
            against: the stage to compare with; the first by default.
            limit: how many at most.

        Returns:
            By loss of the main metric, then by signal-to-noise ratio; without a task by the latter alone. Samples
            that did not change are left out.
        """
        other = self.stage(against or self.rows[0].name).name
        self.stage(stage)

        def loss(row: SampleRow) -> float:
            if stage not in row.scores:
                return 0.0
            gap = row.scores[other] - row.scores[stage]
            return 0.0 if np.isnan(gap) else gap if self.better == "higher" else -gap

        moved = [row for row in self.answers if loss(row) > 0 or row.tallies.get(stage) != row.tallies.get(other)
                 or (not self.metric and row.snr_db.get(stage, np.inf) < np.inf)]
        return sorted(moved, key=lambda row: (-loss(row), row.snr_db.get(stage, np.inf)))[:limit]

    def title(self) -> str:
        fakes = [row.name for row in self.rows if row.device.startswith("FAKE")]
        return self._said() + (f" [FAKE, nothing ran on a device: {', '.join(fakes)}]" if fakes else "")

    def _said(self) -> str:
        last = self.rows[-1]
        if self.where:
            row = self.stage(self.where)
            return f"{row.name!r} is where the answers are lost first: {row.why}"
        if len(self.rows) == 1:
            return f"{last.name!r} alone: nothing to compare with"
        if self.metric:
            first, end = self.rows[0].scores[self.metric], last.scores[self.metric]
            return ("Every stage keeps the answers: "
                    f"{self.metric} {first:.3f} -> {end:.3f} ({last.change})")
        return "Every stage keeps the outputs, as far as tensors can tell"

    def facts(self) -> dict[str, object]:
        used = f"{self.samples}" if self.samples == self.of else f"{self.samples} of {self.of}"
        rough = f" (fewer than {FEW}: the intervals are rough)" if self.metric and self.samples < FEW else ""
        floor = worst(self.noise_floor)
        return {
            "samples": used + rough,
            **({"metric": f"{self.metric}, {self.better} is better; a loss of {self.allowed_loss:g} is allowed",
                "intervals": f"{self.confidence:.0%}, from resampling the samples"} if self.metric else
               {"metric": "none: no task was given, so only tensors were compared"}),
            **({"rounding alone": f"moves {floor.name!r} by {floor.relative:.1e} of its largest value"}
               if floor else {}),
            **{f"alarm {n}": alarm for n, alarm in enumerate(self.alarms, start=1)},
            **{f"note on {row.name}": " ".join(row.notes) for row in self.rows if row.notes},
            **{f"answers of {row.name}": f"recorded on {row.device}; it did not run here" for row in self.rows
               if row.device},
        }

    def tables(self) -> tuple[Table, ...]:
        stages = Table("Stage by stage, against the first", (
            "stage", "precision", "size", *([self.metric, "interval", "change"] if self.metric else []),
            "SNR", "max abs", "verdict"), tuple(self._row(row) for row in self.rows))
        why = Table("Why", ("stage", "verdict", "reason"), tuple((r.name, r.status, r.why) for r in self.rows[1:]))
        return (stages, why, *self._changed_table())

    def _row(self, row: StageRow) -> tuple[object, ...]:
        far = worst(row.parity)
        ends = "-" if row.interval is None else "[{:.3f}, {:.3f}]".format(*row.interval)
        task = [f"{row.scores[self.metric]:.4f}", ends, row.change or "-"] if self.metric else []
        return (row.name, row.precision, bytes_text(row.size) if row.size else "-", *task, decibels(row.snr_db),
                f"{far.max_abs:.1e}" if far else "-", row.status)

    def _changed_table(self) -> tuple[Table, ...]:
        stage, first = self.where or self.rows[-1].name, self.rows[0].name
        rows = self.changed(stage, limit=5) if self.metric and len(self.rows) > 1 else []
        if not rows:
            return ()
        texts = any(row.texts for row in rows)
        columns = ("sample", f"{self.metric} before", "after", *(("read before", "after") if texts else ()))
        return (Table(f"Answers that changed most, {first} -> {stage}", columns, tuple(
            (row.name, f"{row.scores[first]:.3f}", f"{row.scores[stage]:.3f}",
             *(differing(row.texts.get(first, ""), row.texts.get(stage, "")) if texts else ())) for row in rows)),)


def decibels(value: float | None) -> str:
    """``41.2 dB``; a ratio without noise is "exact"."""
    return "-" if value is None else "exact" if value == np.inf else f"{value:.1f} dB"


def differing(before: str, after: str, width: int = 40) -> tuple[str, str]:
    """Both texts on one line each, cut to the part where they begin to differ."""
    before, after = before.replace("\n", " / "), after.replace("\n", " / ")
    shorter = min(len(before), len(after))
    same = next((n for n in range(shorter) if before[n] != after[n]), shorter)
    start = max(0, same - width // 4) if max(len(before), len(after)) > width else 0

    def part(text: str) -> str:
        return ("..." if start else "") + text[start:start + width] + ("..." if len(text) > start + width else "")

    return part(before), part(after)
