"""Compile to a TensorFlow SavedModel: a numbered version directory that a server takes as it is.

Sizes are fixed and constants folded by the rules of ``kit.fix`` first: onnx2tf loses its way in computed shapes.
The batch stays open where that works: tried first with an open batch, then item by item inside the graph, then fixed.
What was written is loaded with the TensorFlow that is here and judged by its answers: at most 1e-5 of the largest
magnitude (where that is above 1) is equal, at most 1e-3 a warning, more has failed, and then the layer is named.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kit import environments, worker
from kit.comparison import TensorParity
from kit.compiled_files import write_files
from kit.compiling import savedmodel_call, savedmodel_convert, savedmodel_layers
from kit.compiling.onnx2tf_model import Port
from kit.compiling.result import Compiled, SessionSettings, parity
from kit.compiling.saved import Saved, SavedModelOptions, readme
from kit.compiling.savedmodel_answers import answers, as_served, ask, feeds_of, lay, moved
from kit.compiling.savedmodel_attempts import TOOL, attempts, in_tool
from kit.errors import BadInput, KitError, ToolFailed
from kit.inspection.graph import graph_of
from kit.model import Model, TensorSpec, operator_counts
from kit.preflight import require
from kit.progress import Report, Tick
from kit.record import digest
from kit.source import Source, recognise

STEPS = 6
_BATCH = {"open": "open", "each": "open, one after the other"}


def make(source: Model, name: str, folder: Path, options: SavedModelOptions, report: Report, *, artefact: Any,
         samples: Any = None) -> Compiled:
    """Write the model and everything beside it into ``folder``.

    Args:
        artefact: what compile() was given: what is called, or where the ONNX model came from.
        samples: feeds of the ONNX model; made-up ones where there are none that fit.
    """
    require("tensorflow", "tensorflow-cpu|tensorflow")
    name = options.name or name
    place = folder / name / str(options.version)
    sizes = {label: tuple(shape) for label, shape in graph_of(source.path, options.bind).bound.items()}
    sizes = {label: (options.batch, *shape[1:]) if options.batch and shape and _open(source, label) else shape
             for label, shape in sizes.items()}
    feeds = feeds_of(source, sizes, samples, options.checks)
    reference, notes = _origin(artefact, options), []
    report(Tick(0, STEPS, "asking the ONNX model"))
    wanted = answers(source, feeds, graph_level="none", threads=options.threads)
    if options.how == "call":
        saved, rows = _call(source, artefact, name, place, options, feeds, wanted, report)
    else:
        saved, rows, more = _convert(source, name, place, folder / "work", options, feeds, wanted, report)
        notes += more
    origin = "the ONNX model in ONNX Runtime, not rewritten"
    verdicts = [row.verdict for row in rows]
    if reference is not None:
        report(Tick(STEPS - 2, STEPS, f"comparing with {reference.path.name}"))
        first = answers(reference, feeds, threads=options.threads)
        if {len(answer) for answer in first} == {len(source.outputs)}:
            saved = replace(saved, onnx=rows)
            rows = parity(first, ask(place, saved, source, feeds, options))
            if "failed" not in verdicts and any(row.verdict == "failed" for row in rows):
                notes.append("The SavedModel answers as the ONNX model does: the difference came with the export.")
            verdicts += [row.verdict for row in rows]
            origin = f"{reference.path.name} ({reference.kind}), and the ONNX model in between"
        else:
            notes.append(f"{reference.path.name} has other outputs than the ONNX model: compared with the ONNX model.")
    verdict = max(verdicts, key=("equal", "warning", "failed").index, default="equal")
    (folder / "README.md").write_text(readme(saved, folder), encoding="utf-8", newline="\n")
    report(Tick(STEPS - 1, STEPS, "writing manifest and script"))
    settings = SessionSettings(options.threads, ("CPU",), runtime="tensorflow")
    compiled = Compiled(
        model=source, target="savedmodel", level="", settings=settings, manifest=folder / "manifest.json",
        script=folder / "run.py", parity=rows, verdict=verdict, reference=origin,
        measured_at={label: "x".join(map(str, shape)) for label, shape in sizes.items()}, portable=True,
        operators_before=dict(sorted(operator_counts(source.path).items())), operators_after={},
        size_before=source.size, notes=tuple(notes), artifact=place,
        size=sum(file.stat().st_size for file in place.rglob("*") if file.is_file()), saved=saved)
    write_files(compiled, as_served(source, saved, sizes), {spec.name: moved(saved, spec.name, sizes[spec.name])
                                                            for spec in source.inputs}, options)
    report(Tick(STEPS, STEPS, "compiled"))
    return compiled


# ---- converted ----------------------------------------------------------------------------------------------------


def _convert(source: Model, name: str, place: Path, work: Path, options: SavedModelOptions,
             feeds: Sequence[Mapping[str, np.ndarray]], wanted: Sequence[Mapping[str, np.ndarray]],
             report: Report) -> tuple[Saved, tuple[TensorParity, ...], list[str]]:
    environments.ready(TOOL, install=options.install, report=report)
    tried, refused = attempts(source, place, work, options, feeds, wanted, report)
    notes = []
    if tried.plan.batch == "fixed" and not refused and not options.batch:
        notes.append("The ONNX model does not take another batch at these sizes, so neither does the SavedModel.")
    if tried.plan.batch != "open" and refused and not options.batch:
        what = "answers one item after the other" if tried.plan.batch == "each" else "takes this batch alone"
        notes.append(f"The batch could not be left open in every operator ({refused[0]}), so the SavedModel {what}.")
    gap, around, looked = None, (), ""
    if tried.verdict == "failed":
        report(Tick(3, STEPS, "looking for the first layer that differs"))
        try:
            rows = in_tool(savedmodel_layers.trace, tried.plan, report=report)
            gap, around = savedmodel_layers.first(rows)
            looked = "" if gap else ("with every tensor as an output the answers agree, so it is a pattern of several "
                                     "nodes that was converted as one")
        except KitError as error:
            looked = error.what
    served = [{label: lay(tried.written.inputs[label], values) for label, values in feed.items()}
              for feed in feeds[: min(options.warm_up, len(feeds))]]
    count = _warm_up(place, work, served, options.warm_up, [spec.name for spec in source.inputs], name, options)
    batch = _BATCH.get(tried.plan.batch, str(next(iter(feeds[0].values())).shape[0] if feeds[0] else 1))
    environment = environments.find(TOOL)
    shutil.rmtree(work, ignore_errors=True)
    return Saved(
        how="convert", name=name, version=options.version, signature=options.signature, inputs=tried.written.inputs,
        outputs=tried.written.outputs, batch=batch, warm_up=count, tools=tried.written.tools,
        environment=environment.size, needs=f"TensorFlow or TensorFlow Serving; the graph was written by TensorFlow "
        f"{tried.written.tools['tensorflow']}, so one of that age or later", diverging=gap, layers=around,
        looked=looked), tried.rows, notes


def _warm_up(place: Path, work: Path, feeds: list[dict[str, np.ndarray]], wanted: int, names: list[str], model: str,
             options: SavedModelOptions, framework: str = TOOL) -> int:
    """Requests in turn from the feeds that are there.

    Raises:
        ToolFailed: the file does not read back as it was written.
    """
    if not wanted:
        return 0
    work.mkdir(exist_ok=True)
    path = work / "warm_up.npz"
    np.savez(path, **{f"{at}/{label}": values for at in range(wanted)
                      for label, values in feeds[at % len(feeds)].items()})
    count = worker.run(savedmodel_convert.write_warm_up, place, path, names, model, options.signature,
                       framework=framework)
    if count != wanted:
        raise ToolFailed(f"Of {wanted} warm-up requests {count} could be read back.",
                         remedy="run again; with warm_up=0 none are written")
    return count


# ---- called -------------------------------------------------------------------------------------------------------


def _call(source: Model, artefact: Any, name: str, place: Path, options: SavedModelOptions,
          feeds: Sequence[Mapping[str, np.ndarray]], wanted: Sequence[Mapping[str, np.ndarray]],
          report: Report) -> tuple[Saved, tuple[TensorParity, ...]]:
    if options.layout != "NCHW":
        raise BadInput("A SavedModel that calls an artefact takes what the artefact takes.",
                       remedy='leave layout at "NCHW": as in the ONNX model')
    called = recognise(artefact)
    inputs = [Port(spec.name, spec.dtype, _sides(spec)) for spec in source.inputs]
    outputs = [Port(spec.name, str(wanted[0][spec.name].dtype), _sides(spec)) for spec in source.outputs]
    report(Tick(1, STEPS, "writing artefact and loader"))
    about = savedmodel_call.prepare(
        called, place, token=f"kit-{digest([called, options])[:16]}", signature=options.signature,
        threads=options.threads, settings=getattr(artefact, "runner_settings", {}), inputs=inputs,
        outputs=[port.name for port in outputs], example={label: values.shape for label, values in feeds[0].items()})
    report(Tick(2, STEPS, "writing the SavedModel"))
    tools = worker.run(savedmodel_call.write_call, place, about, inputs, outputs, framework="tensorflow")
    work = place.parent.parent / "work"
    count = _warm_up(place, work, [dict(feed) for feed in feeds], options.warm_up, [port.name for port in inputs], name,
                     options, framework="tensorflow")
    shutil.rmtree(work, ignore_errors=True)
    runtime = about["runtime"]
    tools |= {runtime: _version(runtime)}
    as_is = {spec.name: "as in the ONNX model" for spec in (*source.inputs, *source.outputs)}
    saved = Saved(
        how="call", name=name, version=options.version, signature=options.signature,
        inputs={spec.name: as_is[spec.name] for spec in source.inputs},
        outputs={spec.name: as_is[spec.name] for spec in source.outputs},
        batch="as in the ONNX model", warm_up=count, tools=tools, environment=0,
        needs=f"a Python process with TensorFlow, numpy and {runtime} ({runtime} {_version(runtime)} was used here), "
        "and assets.extra/kit_call.py loaded first; TensorFlow Serving holds no Python and cannot run it")
    report(Tick(3, STEPS, "comparing its answers"))
    return saved, parity(wanted, ask(place, saved, source, feeds, options))


def _version(package: str) -> str:
    from kit.evidence.entries import versions

    return next(iter(versions(package, f"{package}-gpu").values()), "")


def _sides(spec: TensorSpec) -> tuple[int | None, ...]:
    return tuple(side if isinstance(side, int) else None for side in spec.shape)


def _origin(artefact: Any, options: SavedModelOptions) -> Source | None:
    """What the ONNX model came from: as asked for, otherwise what an export tells, where it is still there.

    Raises:
        BadInput: what was asked for is no model.
    """
    if options.reference is not None:
        return recognise(options.reference)
    for told in (getattr(artefact, "inference_model", None), getattr(artefact, "source", None)):
        if isinstance(told, str | Path) and Path(told).exists():
            with contextlib.suppress(KitError):
                found = recognise(told)
                return found if found.kind in ("paddle", "savedmodel") else None
    return None


def _open(source: Model, name: str) -> bool:
    spec = next(spec for spec in source.inputs if spec.name == name)
    return bool(spec.shape) and not isinstance(spec.shape[0], int)
