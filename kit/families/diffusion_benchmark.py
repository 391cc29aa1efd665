"""Pipelines timed against each other: a step of the UNet, a whole picture, memory, conversion, and what it costs.

Public through ``diffusion``. Steps are timed as ``kit.benchmark`` times runs: every candidate in processes of its own,
in turns, compared with the first by medians over the same rounds, with an interval. Where the memory does not take all
at once they are timed in groups, each with the baseline in it: a candidate's ratio comes from its own group, and
milliseconds of different groups stand for different minutes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.benchmarking import (
    BenchmarkOptions,
    Timing,
    busy_alarm,
    busy_share,
    compare,
    load_average,
    machine_facts,
    noise_alarms,
    take_turns,
)
from kit.errors import BadInput, KitError, unknown
from kit.evidence.entries import versions
from kit.families.diffusion_benchmarked import PipelineBenchmark, PipelineBenchmarkOptions, PipelineRow
from kit.families.diffusion_drawing import draw
from kit.families.diffusion_drawn import Drawn, DrawOptions
from kit.families.diffusion_judge import PictureJudge
from kit.families.diffusion_on_box import DRIVEN
from kit.families.diffusion_pictures import PictureComparison, compare_pictures
from kit.families.diffusion_pipeline import Pipeline
from kit.families.diffusion_resident import Resident, draw_in_turns, first_feed, groups
from kit.families.diffusion_trajectory import prompts_of
from kit.int8.processor import this_processor
from kit.options import expect
from kit.progress import Report, part, silent
from kit.record import run_stage
from kit.source import recognise


def benchmark_pipelines(
    pipelines: Mapping[str, Pipeline],
    options: PipelineBenchmarkOptions = PipelineBenchmarkOptions(),  # noqa: B008 - frozen
    *,
    prompts: Sequence[str],
    judge: PictureJudge | None = None,
    comparison: PictureComparison | None = None,
    conversion: Mapping[str, float] | None = None,
    runs: Path | str | None = None,
    report: Report = silent,
) -> PipelineBenchmark:
    """Time pipelines in turns, and say what each costs in memory, conversion and pictures.

    Args:
        pipelines: name -> pipeline; the first is the baseline.
        options: see the class. A stored result is shown unless ``repeat`` is raised.
        prompts: drawn in the timed pictures, and compared.
        judge: says whether pictures show what was asked for.
        comparison: of pictures drawn before, by the same names; otherwise those of ``prompts`` are drawn here, untimed.
        conversion: name -> seconds that its conversion took.
        runs: where the result is kept.
        report: hears progress.

    Raises:
        BadInput: no pipelines or prompts, or a name in ``conversion`` or ``comparison`` that is no pipeline's.
        KitError: the baseline cannot be opened or run. Of the others, one that fails is a row with its reason.
    """
    expect(PipelineBenchmarkOptions, options)
    if not pipelines:
        raise BadInput("There are no pipelines.", remedy='give a mapping, such as {"PyTorch": Pipeline.read(folder)}')
    prompts, conversion = prompts_of(None, prompts), dict(conversion or {})
    for name in (*conversion, *([row.name for row in comparison.rows] if comparison else ())):
        if name not in pipelines:
            raise unknown("pipeline", name, pipelines, "this benchmark")

    def work(scratch: Path, report: Report) -> PipelineBenchmark:
        return _benchmark(pipelines, options, prompts, judge, comparison, conversion, report)

    inputs = {"pipelines": [[name, pipeline] for name, pipeline in pipelines.items()], "prompts": prompts,
              "judge": judge, "comparison": comparison, "conversion": conversion, "versions": versions(),
              "machine": [this_processor().name, os.cpu_count()]}
    return run_stage("benchmark-pipelines", PipelineBenchmark, work, options=options, inputs=inputs,
                     name=next(iter(pipelines.values())).name, runs=runs, report=report)


def _benchmark(pipelines: Mapping[str, Pipeline], options: PipelineBenchmarkOptions, prompts: tuple[str, ...],
               judge: PictureJudge | None, comparison: PictureComparison | None, conversion: dict[str, float],
               report: Report) -> PipelineBenchmark:
    import psutil

    base, *_ = pipelines
    drawing, timing, failed = options.drawing(), options.timing(), {}
    limit = options.memory_gb * 1e9 if options.memory_gb else 0.85 * psutil.virtual_memory().available
    feed = first_feed(pipelines[base], prompts[0], drawing)
    rows: dict[str, PipelineRow] = {}
    base_steps, alarms, machine, ended = [], {}, {}, None
    for number, resident in enumerate(groups(pipelines, drawing, bool(options.pictures), int(limit), feed, failed,
                                             report), start=1):
        if number > 1 and len(resident) == 1:
            continue  # those meant for this group failed
        busy, load = busy_share(), load_average()
        machine = machine or machine_facts(busy, load)
        try:
            found = _timed(resident, options, timing, feed, prompts, report)
        except KitError as error:
            # Which of them it was is not known; the other groups are kept.
            failed |= dict.fromkeys(set(resident) - {base}, f"Its group could not be timed: {error.what}")
            ended = error
            continue
        base_steps.append(found[base].step.p50_ms)
        alarms |= dict.fromkeys((*busy_alarm(busy, load, timing), *noise_alarms(
            [each for row in found.values() for each in (row.step, row.picture) if each], timing)))
        rows |= {name: dataclasses.replace(row, group=number) for name, row in found.items() if name not in rows}
    if base not in rows:
        assert ended
        raise ended
    notes: dict[str, str] = {}
    if comparison is None and options.compare:
        comparison = _compared(pipelines, [name for name in pipelines if name in rows], prompts, judge, drawing, notes,
                               report)
    made = tuple(_completed(name, rows.get(name) or PipelineRow(name, failed=failed[name]), pipeline, comparison,
                            conversion.get(name), notes.get(name)) for name, pipeline in pipelines.items())
    drawn = len(comparison.prompts) if comparison else 0
    return PipelineBenchmark(made, options, machine, tuple(base_steps), tuple(alarms), drawn)


def _timed(resident: Mapping[str, Resident], options: PipelineBenchmarkOptions, timing: BenchmarkOptions,
           feed: Mapping[str, Any], prompts: tuple[str, ...], report: Report) -> dict[str, PipelineRow]:
    """Rows of one group, without what does not come from timing."""
    about = {name: {"settings": each.settings} for name, each in resident.items()}
    steps = compare(take_turns(resident, [dict(feed)], timing, part(report, "steps")), timing, about)
    # Before pictures are drawn: the memory of steps alone.
    memory = {name: each.memory() for name, each in resident.items()}
    pictures: Iterable[Timing | None] = [None] * len(resident)
    if options.pictures:
        pictures = compare(draw_in_turns(resident, prompts, options.pictures, options.pause_ms, report), timing)
        memory = {name: (memory[name][0], each.memory()[1]) for name, each in resident.items()}
    return {name: PipelineRow(
        name, step=dataclasses.replace(step, memory=memory[name][0]), picture=picture, opened=round(each.opened, 2),
        first=round(each.first, 3), memory=memory[name][0],
        memory_of_all=memory[name][1] if options.pictures else None)
        for (name, each), step, picture in zip(resident.items(), steps, pictures, strict=True)}


def _compared(pipelines: Mapping[str, Pipeline], names: Sequence[str], prompts: tuple[str, ...],
              judge: PictureJudge | None, drawing: DrawOptions, notes: dict[str, str], report: Report
              ) -> PictureComparison:
    """Pictures of those that could be timed; one that cannot draw gets a note."""
    drawn: dict[str, Drawn] = {}
    for name in names:
        try:
            drawn[name] = dataclasses.replace(draw(pipelines[name], prompts, drawing, report=part(report, name)),
                                              pipeline=name)
        except KitError as error:
            if not drawn:
                raise
            notes[name] = f"It could not draw: {error.what}"
    base, *others = drawn
    return compare_pictures(drawn[base], {name: drawn[name] for name in others}, judge)


def _completed(name: str, row: PipelineRow, pipeline: Pipeline, comparison: PictureComparison | None,
               conversion: float | None, note: str | None) -> PipelineRow:
    rows = comparison.rows if comparison else ()
    likeness = next((each for each in rows if each.name == name), None)
    first = likeness is None or likeness is rows[0]
    broken = [f"{len(likeness.alarmed)} of its pictures cannot be right."] if likeness and likeness.alarmed else []
    return dataclasses.replace(
        row, conversion=conversion, size=sum(recognise(pipeline.part(each)[0]).size for each in DRIVEN),
        psnr=None if first else likeness.psnr_of_all.median, psnr_worst=None if first else likeness.psnr_of_all.worst,
        right=likeness.accuracy if likeness else None, notes=(*broken, *([note] if note else [])))
