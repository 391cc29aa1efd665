"""How pipelines are timed, and what comes of it: a row for each framework path, as articles on migrations show it.

Public through ``diffusion``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from kit.benchmarking import BenchmarkOptions, Timing
from kit.card import Card, Table, bytes_text
from kit.errors import unknown
from kit.families.diffusion_drawn import DrawOptions
from kit.options import Help, Options, Range
from kit.record import Provenance


@dataclass(frozen=True)
class PipelineBenchmarkOptions(Options):
    """How pipelines are timed."""

    rounds: Annotated[int, Range(5, 10_000, 1), Help("turns of single UNet steps that each candidate gets")] = 15
    runs: Annotated[int, Range(1, 1000, 1), Help("timed steps in a turn; one more before them does not count")] = 3
    pictures: Annotated[int, Range(0, 1000, 1), Help(
        "turns of whole pictures; 0 leaves them out, fewer than 5 give a rough interval")] = 5
    steps: Annotated[int, Range(1, 500, 1), Help("of the scheduler, in a whole picture")] = 20
    guidance: Annotated[float, Range(0, 30, 0.5), Help("how far the prompt is followed")] = 7.5
    seed: Annotated[int, Range(0, 2**31 - 1, 1), Help("of the starting noise and of the resampling")] = 0
    threads: Annotated[int, Range(1, 256, 1), Help("of each candidate")] = 2
    pause_ms: Annotated[int, Range(0, 5000, 10), Help(
        "wait before each turn, so that the last candidate's idle threads stop spinning")] = 50
    memory_gb: Annotated[float | None, Range(1, 4096, 1), Help(
        "what all open pipelines may take together; by default 85% of what is available")] = None
    confidence: Annotated[float, Range(0.5, 0.999, 0.01), Help("how much the intervals hold")] = 0.95
    resamples: Annotated[int, Range(100, 100_000, 100), Help("how often the rounds are drawn anew")] = 2000
    compare: Annotated[bool, Help("also draw the prompts with each, untimed, and compare the pictures")] = True
    repeat: Annotated[int, Range(0, 1_000_000, 1), Help(
        "raise it to measure again: a stored result is shown otherwise")] = 0

    def timing(self) -> BenchmarkOptions:
        """The same for ``kit.benchmark``."""
        return BenchmarkOptions(rounds=self.rounds, runs=self.runs, threads=self.threads, pause_ms=self.pause_ms,
                                confidence=self.confidence, resamples=self.resamples, seed=self.seed)

    def drawing(self) -> DrawOptions:
        """The same for ``draw``."""
        return DrawOptions(steps=self.steps, guidance=self.guidance, seed=self.seed, threads=self.threads)


@dataclass(frozen=True)
class PipelineRow:
    """One candidate; a figure that was not measured is None.

    Attributes:
        name: as it was given.
        group: number of the group in which it was open, from 1.
        step: times of a step of the UNet, a batch of two.
        picture: times of a whole picture.
        conversion: seconds of export, calibration, quantization, compilation, as the caller measured them.
        opened: seconds until its parts were loaded.
        first: seconds of its first step; ``torch.compile`` compiles in it.
        memory: bytes, the highest resident memory of the UNet's process.
        memory_of_all: bytes, those of all parts' processes together.
        size: bytes on disk of the parts that draw.
        psnr: dB against the baseline's pictures, median.
        psnr_worst: dB, the worst picture.
        right: share of pictures that the judge reads as the prompt asks.
        failed: why there are no times; "" where there are.
        notes: what else went wrong.
    """

    name: str
    group: int | None = None
    step: Timing | None = None
    picture: Timing | None = None
    conversion: float | None = None
    opened: float | None = None
    first: float | None = None
    memory: int | None = None
    memory_of_all: int | None = None
    size: int = 0
    psnr: float | None = None
    psnr_worst: float | None = None
    right: float | None = None
    failed: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PipelineBenchmark(Card):
    """Pipelines timed in turns.

    Attributes:
        rows: one a candidate, the baseline first.
        options: see the class.
        machine: processor, and how busy it was before.
        base_steps: milliseconds of the baseline's step, the median in each group.
        alarms: why the figures are to be taken with care; empty on a quiet machine.
        drawn: pictures that PSNR and judge are from; 0 where none were compared.
    """

    rows: tuple[PipelineRow, ...]
    options: PipelineBenchmarkOptions
    machine: dict[str, str]
    base_steps: tuple[float, ...]
    alarms: tuple[str, ...]
    drawn: int = 0
    provenance: Provenance | None = field(default=None, compare=False)

    def row(self, name: str) -> PipelineRow:
        """A candidate's row.

        Raises:
            BadInput: there is none of that name.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise unknown("pipeline", name, [row.name for row in self.rows], "this benchmark")

    def title(self) -> str:
        base, *others = self.rows
        noisy = " (noisy machine: see the alarms)" if self.alarms else ""
        timed = [row for row in others if row.step]
        if not timed:
            return f"{base.name}: {base.step.p50_ms:.1f} ms a step{noisy}"
        best = max(timed, key=lambda row: row.step.speedup)
        memory = f", with {best.memory / base.memory:.2f} of its memory" if best.memory and base.memory else ""
        return f"{best.name}: a step against {base.name}: {best.step.words()}{memory}{noisy}"

    def facts(self) -> dict[str, object]:
        options, count = self.options, len(self.base_steps)
        steps = ", ".join(f"{ms:.1f}" for ms in self.base_steps)
        whole = f"{options.pictures} whole pictures of {options.steps} steps each" if options.pictures else \
            "no whole pictures"
        return {
            **{f"ALARM {n}": alarm for n, alarm in enumerate(self.alarms, start=1)},
            "turns": f"{options.rounds} rounds of {options.runs} steps (a batch of two: without prompt and with), "
                     f"{whole}; {options.threads} threads, a process for each part",
            "groups": "all candidates were open at once and took turns" if count == 1 else
            f"the memory takes few at once: {count} groups, one after the other, {self.rows[0].name} in each. Ratios "
            f"are from turns in the same group; its own step took {steps} ms in them",
            "a whole picture": "asked through the processes' pipes, the scheduler's arithmetic included",
            "intervals": f"{options.confidence:.0%}, from resampling the rounds; 1 inside means no difference shown",
            **({"pictures compared": f"{self.drawn}, from the same noise, against those of {self.rows[0].name}"}
               if self.drawn else {}),
            **self.machine,
            **{f"failed: {row.name}": row.failed for row in self.rows if row.failed},
            **{f"note on {row.name}": " ".join(row.notes) for row in self.rows if row.notes},
        }

    def tables(self) -> tuple[Table, ...]:
        base = self.rows[0]
        figures = Table(f"Framework paths, against {base.name}", (
            "path", "conversion s", "UNet step ms", "step against baseline", "peak memory UNet", "of baseline",
            "PSNR dB", "worst", "judged right"), tuple(_figures(row, base) for row in self.rows))
        whole = Table("Opening, whole pictures, files", (
            "path", "load s", "first step s", "picture s", "picture against baseline", "peak memory all", "files"),
            tuple(_whole(row) for row in self.rows))
        names = sorted({name for row in self.rows if row.step for name in row.step.settings})
        settings = Table("UNet's runtime", ("path", "group", *names), tuple(
            (row.name, row.group, *(row.step.settings.get(name, "-") for name in names))
            for row in self.rows if row.step))
        return (figures, whole, settings)


def _figures(row: PipelineRow, base: PipelineRow) -> tuple[str, ...]:
    part_of = f"{row.memory / base.memory:.2f}" if row.memory and base.memory else "-"
    return (row.name, _said(row.conversion), *_timed(row, row.step, 1, 1), _size(row.memory), part_of, _said(row.psnr),
            _said(row.psnr_worst), _said(row.right, 3))


def _whole(row: PipelineRow) -> tuple[str, ...]:
    return (row.name, _said(row.opened), _said(row.first), *_timed(row, row.picture, 1000, 2), _size(row.memory_of_all),
            _size(row.size))


def _timed(row: PipelineRow, timing: Timing | None, unit: float, digits: int) -> tuple[str, str]:
    if row.failed:
        return "failed", "-"
    return ("-", "-") if timing is None else (f"{timing.p50_ms / unit:.{digits}f}", timing.words())


def _said(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _size(value: int | None) -> str:
    return bytes_text(value) if value else "-"
