"""``capture``: inputs of the UNet as they occur on its way from noise to latents, to calibrate and verify with.

Public through ``diffusion``. What a UNet sees changes all along the way: pure noise at first, nearly a picture at the
end, and each step twice, without the prompt and with it. Calibration that has seen only a part of it clips the rest.
So inputs are picked evenly from the strata of timestep, branch and prompt; other choices are there to compare with.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from kit.card import Card, Table
from kit.errors import BadInput
from kit.evidence.entries import versions
from kit.families.diffusion_drawing import StepSeen, draw, scheduler_of, starting_noise
from kit.families.diffusion_drawn import DrawOptions
from kit.families.diffusion_pipeline import Pipeline
from kit.families.diffusion_trajectory import prompts_of
from kit.options import Help, Options, Range, expect
from kit.progress import Report, silent
from kit.record import Provenance, digest, run_stage

VERSION = 1
BRANCHES = ("without prompt", "with prompt")


@dataclass(frozen=True)
class CaptureOptions(Options):
    """Which inputs of the UNet are kept."""

    inputs: Annotated[int, Range(1, 10_000, 1), Help("how many are kept, each with a batch of one")] = 64
    choice: Annotated[Literal["stratified", "random", "first"], Help(
        "stratified: evenly from all timesteps, both branches and all prompts; random; first: as they come")
    ] = "stratified"
    bins: Annotated[int, Range(1, 1000, 1), Help("into how many spans the timesteps are divided")] = 10
    steps: Annotated[int, Range(1, 500, 1), Help("of the scheduler")] = 20
    guidance: Annotated[float, Range(0, 30, 0.5), Help("how far the prompt is followed")] = 7.5
    seed: Annotated[int, Range(0, 2**31 - 1, 1), Help("of the starting noise and of the choice")] = 0
    scheduler: Annotated[Literal["as saved", "ddim", "pndm"], Help("the way from noise to latents")] = "as saved"
    threads: Annotated[int, Range(1, 256, 1), Help("of each part's runtime")] = 2

    def drawing(self) -> DrawOptions:
        """The same for ``draw``."""
        return DrawOptions(steps=self.steps, guidance=self.guidance, seed=self.seed, scheduler=self.scheduler,
                           threads=self.threads)


@dataclass(frozen=True)
class Call:
    """Where on its way an input of the UNet was seen.

    Attributes:
        prompt: number of the prompt.
        step: of the walk, from 0.
        timestep: fed.
        branch: 0 without the prompt, 1 with it.
        bin: span of the timesteps, 0 the first of the walk.
    """

    prompt: int
    step: int
    timestep: int
    branch: int
    bin: int

    @property
    def name(self) -> str:
        """For tables and errors: prompt, timestep, branch."""
        return f"prompt {self.prompt}, timestep {self.timestep}, {BRANCHES[self.branch]}"


@dataclass(frozen=True, eq=False)
class Captured(Card, Sequence):  # type: ignore[type-arg]
    """Inputs of the UNet: a sequence of feeds, each with a batch of one.

    Attributes:
        pipeline: name of what drew.
        prompts: that were drawn.
        options: how they were picked.
        calls: where each was seen.
        samples: noisy latents, float32 [n, 4, h, w].
        hidden: what the text encoder said, float32 [n, tokens, width].
        possible: how many inputs there were to pick from.
    """

    pipeline: str
    prompts: tuple[str, ...]
    options: CaptureOptions
    calls: tuple[Call, ...] = field(repr=False)
    samples: np.ndarray = field(repr=False)
    hidden: np.ndarray = field(repr=False)
    possible: int = 0
    provenance: Provenance | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.calls)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return self.picked(range(*at.indices(len(self))))
        call = self.calls[at]
        return {"sample": self.samples[at][None], "timestep": np.array([call.timestep], np.int64),
                "encoder_hidden_states": self.hidden[at][None]}

    @property
    def items(self) -> tuple[Call, ...]:
        """The calls; stages take the samples' names from here."""
        return self.calls

    def picked(self, which: Sequence[int]) -> Captured:
        """Some of them, by their numbers."""
        which = list(which)
        return dataclasses.replace(self, calls=tuple(self.calls[at] for at in which), samples=self.samples[which],
                                   hidden=self.hidden[which])

    def by_bin(self) -> dict[int, Captured]:
        """Those of each span of the timesteps, the first of the walk first."""
        groups = sorted({call.bin for call in self.calls})
        return {group: self.picked([at for at, call in enumerate(self.calls) if call.bin == group])
                for group in groups}

    def digest(self) -> str:
        """Of the inputs."""
        return digest([self.calls, self.samples, self.hidden])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Captured) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def title(self) -> str:
        return f"{len(self)} of {self.possible} inputs of the UNet of {self.pipeline} kept, {self.options.choice}"

    def facts(self) -> dict[str, object]:
        steps = [call.timestep for call in self.calls]
        branches = Counter(call.branch for call in self.calls)
        return {
            "timesteps": f"{max(steps)} to {min(steps)}, {len(set(steps))} different",
            "branches": ", ".join(f"{branches[at]} {name}" for at, name in enumerate(BRANCHES)),
            "prompts": f"{len({call.prompt for call in self.calls})} of {len(self.prompts)}",
            "size": f"{(self.samples.nbytes + self.hidden.nbytes) / 1e6:.1f} MB",
        }

    def tables(self) -> tuple[Table, ...]:
        rows = []
        for group in self.by_bin().values():
            steps = [call.timestep for call in group.calls]
            branches = Counter(call.branch for call in group.calls)
            rows.append((f"{max(steps)} to {min(steps)}", *(branches[at] for at in (0, 1)),
                         len({call.prompt for call in group.calls}), f"{group.samples.std():.3f}"))
        return (Table("Kept by timestep", ("timesteps", *BRANCHES, "prompts", "standard deviation of the latents"),
                      tuple(rows)),)


def capture(pipeline: Pipeline, prompts: Sequence[str], options: CaptureOptions = CaptureOptions(), *,
            runs: Path | str | None = None, report: Report = silent) -> Captured:
    """Draw pictures, and keep some of the inputs that the UNet gets on the way.

    Which are kept is known before: only prompts of which something is kept are drawn, and nothing else is held.

    Args:
        pipeline: what draws, in float.
        prompts: what to draw; those that the task will see, and not those it is judged by.
        options: see the class.
        runs: where the result is kept.
        report: hears progress.

    Raises:
        BadInput: no prompts, more inputs asked for than there are, or steps that do not fit the scheduler.
    """
    expect(CaptureOptions, options)
    prompts = prompts_of(None, prompts)
    calls = _calls(pipeline, len(prompts), options)
    if options.inputs > len(calls):
        raise BadInput(f"There are {len(calls)} inputs to keep ({len(prompts)} prompts, {options.steps} steps, 2 "
                       f"branches), not {options.inputs}.", remedy="give more prompts, or lower inputs")
    kept = choose(calls, options)

    def work(scratch: Path, report: Report) -> Captured:
        return _captured(pipeline, prompts, options, kept, len(calls), report)

    inputs = {"pipeline": [pipeline.name, pipeline], "prompts": prompts, "versions": versions()}
    return run_stage("capture", Captured, work, options=options, inputs=inputs, name=pipeline.name, version=VERSION,
                     runs=runs, report=report)


def _calls(pipeline: Pipeline, prompts: int, options: CaptureOptions) -> list[Call]:
    """Every call of the UNet, in the order in which they come."""
    drawing = options.drawing()
    timesteps = scheduler_of(pipeline, drawing).timesteps(options.steps)
    spans = np.minimum(np.arange(len(timesteps)) * min(options.bins, len(timesteps)) // len(timesteps),
                       options.bins - 1)
    return [Call(prompt, step, int(timestep), branch, int(spans[step])) for prompt in range(prompts)
            for step, timestep in enumerate(timesteps) for branch in (0, 1)]


def choose(calls: Sequence[Call], options: CaptureOptions) -> list[Call]:
    """Pick ``options.inputs`` of the calls, in the order in which they come.

    Stratified: span of timesteps and branch take turns, and in each the prompt and the step that were taken least come
    first, so that no two strata, and no two prompts, differ by more than the numbers force them to.
    """
    if options.choice == "first":
        return list(calls[: options.inputs])
    random = np.random.default_rng(options.seed)
    if options.choice == "random":
        return [calls[at] for at in sorted(random.choice(len(calls), options.inputs, replace=False))]
    strata: dict[tuple[int, int], list[Call]] = {}
    for at in random.permutation(len(calls)):  # ties are broken by lot
        strata.setdefault((calls[at].bin, calls[at].branch), []).append(calls[at])
    order = [list(strata)[at] for at in random.permutation(len(strata))]
    prompts: Counter[int] = Counter()
    steps: Counter[int] = Counter()
    taken: list[Call] = []
    while len(taken) < options.inputs:
        for key in order:
            if strata[key] and len(taken) < options.inputs:
                call = min(strata[key], key=lambda call: (prompts[call.prompt], steps[call.step]))
                strata[key].remove(call)
                prompts[call.prompt] += 1
                steps[call.step] += 1
                taken.append(call)
    return sorted(taken, key=lambda call: (call.prompt, call.step, call.branch))


def _captured(pipeline: Pipeline, prompts: tuple[str, ...], options: CaptureOptions, kept: list[Call], possible: int,
              report: Report) -> Captured:
    needed = sorted({call.prompt for call in kept})
    wanted = {(call.prompt, call.step, call.branch): at for at, call in enumerate(kept)}
    samples = np.empty((len(kept), *pipeline.latent_shape), np.float32)
    hidden = np.empty((len(kept), pipeline.tokens, pipeline.width), np.float32)

    def watch(seen: StepSeen) -> None:
        for branch in (0, 1):
            at = wanted.get((needed[seen.prompt], seen.step, branch))
            if at is not None:
                samples[at] = seen.feed["sample"][branch]
                hidden[at] = seen.feed["encoder_hidden_states"][branch]

    noise = starting_noise(pipeline, len(prompts), options.seed)[needed]
    draw(pipeline, [prompts[at] for at in needed], options.drawing(), latents=noise, watch=watch, report=report)
    return Captured(pipeline.name, prompts, options, tuple(kept), samples, hidden, possible)
