"""The error of single steps of the UNet, and what becomes of it when each step starts from the one before.

Public through ``diffusion``. Open loop: the candidate's UNet is asked exactly what the reference's was asked on its own
way. Closed loop: the candidate walks its own way from the same noise, and the latents are compared after each step.
Between the two stands what the single errors would add up to: their root sum of squares when they are independent,
their sum when they all point the same way. Less means that later steps repair, more that they amplify.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kit.card import Card, Table
from kit.errors import BadInput
from kit.evidence.entries import versions
from kit.families.diffusion_drawing import scheduler_of
from kit.families.diffusion_drawn import DrawOptions
from kit.families.diffusion_pipeline import Pipeline, ask, open_parts
from kit.families.diffusion_schedulers import guided
from kit.families.diffusion_trajectory import Trajectory, far, prompts_of, walk
from kit.options import expect
from kit.progress import Report, part, silent, track
from kit.record import Provenance, run_stage

Verdict = Literal["exact", "repaired", "added up", "amplified", "lost"]
_EXACT = 1e-5  # of the latents' norm: rounding


@dataclass(frozen=True)
class StepRow:
    """One step of the walk, medians over the pictures. All errors are norms over the norm of the reference.

    Attributes:
        step: from 0.
        timestep: that the UNet was asked at.
        without: error of its answer without the prompt, on the reference's inputs.
        prompted: error of its answer with the prompt.
        guided: error after guidance, which exaggerates what the two answers differ in.
        added: error of the latents that this step alone adds.
        closed: error of the latents after this step when the candidate has walked all the way by itself.
    """

    step: int
    timestep: int
    without: float
    prompted: float
    guided: float
    added: float
    closed: float


@dataclass(frozen=True)
class TimestepRow:
    """Errors of single answers on captured inputs, at one timestep: how many, median and worst."""

    timestep: int
    count: int
    median: float
    worst: float


@dataclass(frozen=True, eq=False)
class StepErrors(Card):
    """Where on its way a candidate leaves the reference, and whether its errors accumulate.

    Attributes:
        reference: name of the pipeline walked with.
        candidate: name of the other.
        prompts: one a picture.
        options: of the walk.
        rows: one a step.
        added: what each step alone adds, float64 [pictures, steps].
        closed: error of the latents after each step, float64 [pictures, steps].
        captured: errors on captured inputs, the earliest timestep of the walk (the highest) first; may be empty.
    """

    reference: str
    candidate: str
    prompts: tuple[str, ...]
    options: DrawOptions
    rows: tuple[StepRow, ...]
    added: np.ndarray = field(repr=False)
    closed: np.ndarray = field(repr=False)
    captured: tuple[TimestepRow, ...] = ()
    provenance: Provenance | None = field(default=None, repr=False)

    @property
    def at_end(self) -> float:
        """The error of the final latents, median over the pictures."""
        return self.rows[-1].closed

    @property
    def independent(self) -> float:
        """What the steps' own errors would come to if they were independent: the median root sum of squares."""
        return float(np.median(np.sqrt(np.square(self.added).sum(axis=1))))

    @property
    def aligned(self) -> float:
        """What they would come to if all pointed the same way: the median sum."""
        return float(np.median(self.added.sum(axis=1)))

    @property
    def verdict(self) -> Verdict:
        """What became of the errors of single steps."""
        if not np.isfinite(self.at_end):
            return "lost"
        if self.at_end <= _EXACT:
            return "exact"
        return "repaired" if self.at_end < self.independent else \
            "added up" if self.at_end <= self.aligned else "amplified"

    def title(self) -> str:
        said = {
            "exact": "the difference is rounding",
            "repaired": "less than the steps add one by one: later steps repair",
            "added up": "the errors of the steps add up",
            "amplified": "more than the steps add one by one: later steps amplify",
            "lost": "the numbers are lost",
        }[self.verdict]
        return f"{self.candidate} against {self.reference}: latents off by {_share(self.at_end)} at the end; {said}"

    def facts(self) -> dict[str, object]:
        worst = max(self.rows, key=lambda row: row.added)
        found = {
            "walked": f"{len(self.prompts)} pictures, {len(self.rows)} calls of the UNet each, guidance "
                      f"{self.options.guidance:g}, the same noise",
            "steps alone": f"{_share(self.independent)} if their errors were independent, {_share(self.aligned)} if "
                           "all pointed the same way",
            "largest step": f"step {worst.step} (timestep {worst.timestep}) adds {_share(worst.added)}",
            "guidance": f"turns an error of {_share(float(np.median([row.prompted for row in self.rows])))} into "
                        f"{_share(float(np.median([row.guided for row in self.rows])))} (medians over the steps)",
        }
        if len(self.prompts) > 1:
            ends = self.closed[:, -1]
            found["pictures"] = f"at the end from {_share(ends.min())} to {_share(ends.max())}"
        return found

    def tables(self) -> tuple[Table, ...]:
        steps = Table("Error by step, of the reference's norm", (
            "step", "timestep", "answer without prompt", "with prompt", "guided", "latents: this step alone",
            "latents: all steps so far"), tuple((row.step, row.timestep, *map(_share, (
                row.without, row.prompted, row.guided, row.added, row.closed))) for row in self.rows))
        if not self.captured:
            return (steps,)
        return (steps, Table("Single answers on captured inputs", ("timestep", "inputs", "median", "worst"), tuple(
            (row.timestep, row.count, _share(row.median), _share(row.worst)) for row in self.captured)))


def step_errors(reference: Pipeline, candidate: Pipeline,
                captured: Sequence[Mapping[str, np.ndarray]] | None = None,
                options: DrawOptions = DrawOptions(), *,  # noqa: B008 - frozen
                prompts: Sequence[str] | None = None, runs: Path | str | None = None,
                report: Report = silent) -> StepErrors:
    """Compare two pipelines step by step: single steps on the reference's way, and all steps on their own.

    One UNet is open at a time, so the memory is that of the larger one.

    Args:
        reference: whose way is walked.
        candidate: with the same scheduler and sizes.
        captured: inputs of the UNet, such as ``capture`` gives, to compare single answers on as well.
        options: how pictures are drawn.
        prompts: of the pictures; those of ``captured`` by default.
        runs: where the result is kept.
        report: hears progress.

    Raises:
        BadInput: no prompts, or pipelines that walk otherwise.
    """
    expect(DrawOptions, options)
    prompts = prompts_of(captured, prompts)
    for what in ("scheduler", "latent_shape", "latent_scale"):
        if getattr(reference, what) != getattr(candidate, what):
            raise BadInput(f"{candidate.name!r} and {reference.name!r} have another {what}: {getattr(candidate, what)} "
                           f"and {getattr(reference, what)}.", remedy="make the one from the other with replaced(...)")

    def work(scratch: Path, report: Report) -> StepErrors:
        return _compare(reference, candidate, captured, prompts, options, report)

    inputs = {"reference": [reference.name, reference], "candidate": [candidate.name, candidate], "prompts": prompts,
              "captured": captured if captured is not None else (), "versions": versions()}
    return run_stage("step-errors", StepErrors, work, options=options, inputs=inputs, name=reference.name, runs=runs,
                     report=report)


def _compare(reference: Pipeline, candidate: Pipeline, captured: Any, prompts: tuple[str, ...], options: DrawOptions,
             report: Report) -> StepErrors:
    seen = walk(reference, prompts, options, part(report, reference.name))
    known = _answers(reference, captured, options, part(report, reference.name)) if captured is not None else []
    with open_parts(candidate, ("unet",), options.threads) as parts:
        open_loop = np.stack([_open_loop(parts["unet"], reference, seen, at, options) for at in track(
            range(len(prompts)), part(report, candidate.name), note="single steps")])  # [pictures, 4, steps]
    single = _answers(candidate, captured, options, part(report, candidate.name)) if captured is not None else []
    own = walk(candidate, prompts, options, part(report, candidate.name))
    closed = np.array([[far(left, right) for left, right in zip(seen.latents(at), own.latents(at), strict=True)]
                       for at in range(len(prompts))])
    middle, after = np.median(open_loop, axis=0), np.median(closed, axis=0)
    rows = tuple(StepRow(step, timestep, *map(float, middle[:, step]), float(after[step]))
                 for step, timestep in enumerate(seen.drawn.timesteps))
    return StepErrors(reference.name, candidate.name, prompts, options, rows, open_loop[:, 3], closed,
                      _by_timestep(captured, known, single))


def _open_loop(runner: Any, reference: Pipeline, seen: Trajectory, picture: int, options: DrawOptions) -> np.ndarray:
    """Errors of every step on the reference's way: without, prompted, guided, added; float64 [4, steps]."""
    sampler, found = scheduler_of(reference, options).sampler(options.steps), []
    for step, true in zip(seen.steps[picture], seen.latents(picture), strict=True):
        answer = ask(runner, "unet", step.feed)
        # The sampler remembers earlier answers: those of the reference, so that only this step is the candidate's.
        fork = copy.deepcopy(sampler)
        latents = step.feed["sample"][:1]
        with np.errstate(over="ignore", invalid="ignore"):
            moved = fork.step(guided(answer, options.guidance), latents)
        sampler.step(guided(step.noise, options.guidance), latents)
        found.append([far(step.noise[0], answer[0]), far(step.noise[1], answer[1]),
                      far(guided(step.noise, options.guidance), guided(answer, options.guidance)),
                      far(true, moved[0])])
    return np.array(found).T


def _answers(pipeline: Pipeline, captured: Any, options: DrawOptions, report: Report) -> list[np.ndarray]:
    with open_parts(pipeline, ("unet",), options.threads) as parts:
        return [ask(parts["unet"], "unet", captured[at])
                for at in track(range(len(captured)), report, note="captured inputs")]


def _by_timestep(captured: Any, known: list[np.ndarray], single: list[np.ndarray]) -> tuple[TimestepRow, ...]:
    groups: dict[int, list[float]] = {}
    for at, (left, right) in enumerate(zip(known, single, strict=True)):
        groups.setdefault(int(np.ravel(captured[at]["timestep"])[0]), []).append(far(left, right))
    return tuple(TimestepRow(timestep, len(errors), float(np.median(errors)), max(errors))
                 for timestep, errors in sorted(groups.items(), reverse=True))


def _share(value: float) -> str:
    """``2.31 %``; small ones with a power of ten."""
    return "lost" if not np.isfinite(value) else f"{value:.2%}" if value >= 1e-4 or value == 0 else f"{value:.1e}"
