"""Compile: turn a model into what a target loads, with everything needed to run it elsewhere.

For ONNX Runtime that is the graph as the runtime itself rewrites it, for OpenVINO its own format; with both come the
session settings it should run with, a manifest (hashes, inputs, the equal call, versions) and a script that needs
nothing but the runtime and numpy. Before anything is kept, the compiled model's answers are compared with those of the
model it was made from. ``target="cpu"`` searches first and compiles what it picked. ``target="savedmodel"`` writes a
version directory as TensorFlow Serving takes it. For an Ascend chip, whose compiler is seldom here, it writes a bundle
that one command finishes on the box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kit.ascend.bundling.bundle import BundleOptions, script_parts
from kit.compiling import ascend, onnxruntime, openvino, savedmodel
from kit.compiling.result import SEARCHED, Compiled, CompileOptions, SessionSettings
from kit.compiling.saved import SAVED, SavedModelOptions
from kit.errors import BadInput
from kit.evidence.entries import versions
from kit.inspection.graph import onnx_source
from kit.int8.processor import this_processor
from kit.model import Model
from kit.options import expect
from kit.progress import Report, part, silent
from kit.record import run_stage
from kit.source import recognise

__all__ = ["BundleOptions", "CompileOptions", "Compiled", "SavedModelOptions", "SessionSettings", "compile"]

VERSION = 2
_MAKERS = {"onnxruntime": onnxruntime.make, "openvino": openvino.make}


def compile(model: Any, options: CompileOptions | BundleOptions | SavedModelOptions = CompileOptions(), *,  # noqa: B008
            samples: Any = None, calibration: Any = None, sensitivity: Any = None, metric: Any = None,
            runs: Path | str | None = None, report: Report = silent) -> Compiled:
    """Compile a model for a target.

    Args:
        model: an .onnx file, a Model, or a result that carries one.
        options: the target, the level of rewriting, the session settings; BundleOptions for an Ascend chip,
            SavedModelOptions for TensorFlow.
        samples: for target cpu: what to calibrate by and to time with. For an Ascend chip: where golden inputs and
            calibration data come from. For a SavedModel: what the answers are compared on.
        calibration: for target cpu: a ready one, instead of samples. For an Ascend chip: where tensors leave the range
            of 16 bits, their nodes stay in float.
        sensitivity: for an Ascend chip: of ``kit.sensitivity``; its dearest layers stay in float.
        metric: for target cpu: from an open runner to a number, larger is better; see ``kit.search``.
        runs: where results are kept.
        report: hears the progress.

    Returns:
        Compiled: the model, its settings, a manifest and a script; ``bool(...)`` is False when its answers changed.

    Raises:
        BadInput: the file cannot be read, the disk cannot be written, target cpu was given nothing to search by, or
            sizes, flags or AIPP do not fit the model.
        UnsupportedModel: the runtime refuses the model, or the audit for an Ascend chip finds errors.
        MissingTool: a SavedModel needs an environment that is not made and may not be, or TensorFlow is missing.
        ToolFailed: ``atc`` or onnx2tf refuses the model; says which node and what to do.
    """
    make = _KINDS.get(type(options))
    if make is None:
        expect(CompileOptions, options)
    return make(model, options, samples, calibration, sensitivity, metric, runs, report)


def _compiled(model: Any, options: CompileOptions, samples: Any, calibration: Any, sensitivity: Any, metric: Any,
              runs: Path | str | None, report: Report) -> Compiled:
    if options.target == SEARCHED:
        return _searched(model, options, samples if calibration is None else calibration, metric, runs, report)
    if options.target == SAVED:
        asked = SavedModelOptions(bind=options.bind, checks=options.checks, threads=options.threads)
        return _saved(model, asked, samples, calibration, sensitivity, metric, runs, report)
    if options.target not in _MAKERS:
        asked = BundleOptions(target=options.target, shapes=options.bind, threads=options.threads)
        return _bundled(model, asked, samples, calibration, sensitivity, metric, runs, report)
    source, opened = _opened(model)

    def work(folder: Path, report: Report) -> Compiled:
        return _MAKERS[options.target](opened, source.name, folder, options, report)

    # At level "all" the file depends on the processor, and so do OpenVINO's layers; otherwise a stored one will do.
    machine = this_processor().name if options.level == "all" or options.target == "openvino" else ""
    return run_stage("compile", Compiled, work, options=options, name=source.name, version=VERSION, runs=runs,
                     report=report, inputs={"model": opened, "machine": machine, "runtime": _runtime(options.target)})


def _bundled(model: Any, options: BundleOptions, samples: Any, calibration: Any, sensitivity: Any, metric: Any,
             runs: Path | str | None, report: Report) -> Compiled:
    source, opened = _opened(model)
    given = ascend.Given.of(model, samples, calibration, sensitivity)
    shapes = ascend.sizes(opened, options, given)
    audited = ascend.audited(opened, options, given, shapes, runs, part(report, "audit"))

    def work(folder: Path, report: Report) -> Compiled:
        return ascend.make(opened, source.name, folder, options, report, given=given, shapes=shapes, audited=audited)

    return run_stage("compile", Compiled, work, options=options, name=source.name, version=VERSION, runs=runs,
                     report=report, inputs={"model": opened, **given.inputs(), "atc": ascend.tool(options),
                                            "script": script_parts(), "runtime": _runtime("onnxruntime")})


def _saved(model: Any, options: SavedModelOptions, samples: Any, calibration: Any, sensitivity: Any, metric: Any,
           runs: Path | str | None, report: Report) -> Compiled:
    # What is called stays as it is, so it may be of a kind that other targets do not start from.
    source, opened = (_opened(model) if options.how == "convert" or not isinstance(model, Compiled)
                      else (recognise(model.model), model.model))
    given = samples if samples is None or hasattr(samples, "digest") else list(samples)

    def work(folder: Path, report: Report) -> Compiled:
        return savedmodel.make(opened, source.name, folder, options, report, artefact=model, samples=samples)

    return run_stage("compile", Compiled, work, options=options, name=source.name, version=VERSION, runs=runs,
                     report=report, inputs={"model": opened, "artefact": recognise(model), "samples": given,
                                            "runtime": versions("tensorflow-cpu", "tensorflow")})


_KINDS: dict[type, Callable[..., Compiled]] = {CompileOptions: _compiled, BundleOptions: _bundled,
                                               SavedModelOptions: _saved}


def _opened(model: Any) -> tuple[Any, Model]:
    source = onnx_source(model, "compile")
    opened = Model.open(model) if isinstance(model, Model) else getattr(model, "model", None)
    return source, opened if isinstance(opened, Model) else Model.open(source.graph)


def _searched(model: Any, options: CompileOptions, samples: Any, metric: Any, runs: Path | str | None,
              report: Report) -> Compiled:
    """Search, then compile the pick as it was measured: same runtime, precision, threads and level."""
    from kit.searching import SearchOptions, search

    if samples is None:
        raise BadInput('target="cpu" searches for the fastest accurate artefact, and has nothing to measure it by.',
                       remedy="give samples=..., or calibration=... with probes; with metric=... the task decides what "
                       "is accurate, otherwise the error of the outputs")
    name = onnx_source(model, "compile").name
    found = search(model, samples, SearchOptions(loss=options.loss, seconds=options.seconds,
                                                 threads=tuple(sorted({1, options.threads}))),
                   metric=metric, runs=runs, report=part(report, "search"))
    picked = found.pick.candidate
    how = found.runner_settings
    level = how.get("graph_level", "all")
    chosen = replace(options, level=level if level != "all" else "extended", precision=how.get("precision", "auto"),
                     threads=how["threads"], spinning=how.get("spinning", options.spinning))
    trials = tuple(tuple(map(str, row[1:])) for row in found.tables()[0].rows)

    def work(folder: Path, report: Report) -> Compiled:
        more = {"load_level": level} if picked.runtime == "onnxruntime" else {}
        made = _MAKERS[picked.runtime](found.model, name, folder, chosen, report, **more)
        return replace(made, trials=trials, notes=(f"Search: {found.title()} ({found.why}).", *made.notes))

    return run_stage("compile", Compiled, work, options=options, name=name, version=VERSION, runs=runs, report=report,
                     inputs={"model": found.model, "how": how, "trials": trials,
                             "machine": this_processor().name, "runtime": _runtime(picked.runtime)})


def _runtime(name: str) -> dict[str, str]:
    return versions("openvino") if name == "openvino" else versions("onnxruntime", "onnxruntime-gpu")
