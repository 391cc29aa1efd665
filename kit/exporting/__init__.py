"""Export: from a trained model to an ONNX file, with the proof that both answer alike.

Three kinds of source: a saved Paddle inference model, a Paddle layer named as ``module:factory``, an ONNX file
brought along. Whatever needs Paddle runs in a worker: ``kit.exporting.paddle``.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from kit import preflight
from kit.comparison import TensorParity
from kit.errors import BadInput, KitError
from kit.exporting import convert_paddle, onnx_file
from kit.exporting.parity import Compared, Trial, compare, compare_answers, overall
from kit.exporting.pir import Unsupported
from kit.exporting.result import Exported, unsupported_table
from kit.exporting.specs import (
    SPARE_TRIALS,
    LayerSource,
    layer_source,
    named,
    parse_axes,
    parse_inputs,
    parse_probe,
    trial_shapes,
)
from kit.model import Model, Step, TensorSpec, read
from kit.options import Help, Options, Range, expect
from kit.progress import Report, Tick, part, silent
from kit.record import run_stage
from kit.runner import open_runner
from kit.samples import Samples, generated
from kit.source import TO_ONNX, Source, recognise

__all__ = ["ExportOptions", "Exported", "Unsupported", "export", "unsupported_table"]

VERSION = 1
#: Target -> the opset it gets by default, and why.
OPSETS = {
    "onnxruntime": (17, "ONNX Runtime takes it since 1.12; HardSwish and LayerNormalization are one operator in it"),
    "openvino": (17, "it does not look at the number; HardSwish and LayerNormalization are one operator in it"),
    "ascend310p3": (16, "ATC reads opset 11 to 17; private and quantised operators only up to 16"),
}


@dataclass(frozen=True)
class ExportOptions(Options):
    """How to export. Everything left alone gives a model for ONNX Runtime, checked and compared."""

    target: Annotated[Literal["onnxruntime", "openvino", "ascend310p3"],
                      Help("Where the model will run; decides the opset")] = "onnxruntime"
    opset: Annotated[int | None, Range(7, 21, 1),
                     Help("Version of the ONNX operators; empty: what suits the target")] = None
    inputs: Annotated[tuple[str, ...], Help('For a layer: its inputs, such as "x:float32[N,3,H,W]"')] = ()
    axes: Annotated[tuple[str, ...], Help('Names of dynamic axes, such as "x=N,3,H,W"; a number fixes one')] = ()
    check: Annotated[bool, Help("Run the ONNX checker, types and shapes included")] = True
    compare: Annotated[bool, Help("Run source and ONNX model on the same inputs")] = True
    samples: Annotated[int, Range(1, 64, 1), Help("How many of the samples given to compare on")] = 4
    probe: Annotated[tuple[str, ...], Help('Sizes of made-up inputs to compare on, such as "x=1,3,640,640"')] = ()
    seed: Annotated[int, Range(0, 2**31 - 1), Help("Of the made-up inputs")] = 0
    config: Annotated[Path | None, Help("An inference.yml whose text and characters go into the model's metadata; "
                                        "empty: the one beside the source")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("inputs", "axes", "probe"):
            if isinstance(value := getattr(self, name), str):
                raise BadInput(f"ExportOptions.{name} takes several texts, not one.",
                               remedy=f"write {name}=({value!r},)")


def export(source: Any, options: ExportOptions = ExportOptions(), *, samples: Samples | None = None,
           runs: Path | str | None = None, report: Report = silent) -> Exported:
    """Make an ONNX model of ``source`` and compare the two.

    Args:
        source: a Paddle inference folder or its graph file (``inference.json``, or the old ``.pdmodel``); a layer as
            ``"package.module:factory"`` or ``"folder/file.py:factory"`` with ``options.inputs``; an .onnx file.
        options: see the class.
        samples: compare on these; without them on made-up inputs, dynamic axes at two sizes.
        runs: where results go.
        report: hears progress.

    Raises:
        MissingTool: Paddle or the converter is missing, or a pair of versions is known to fail; before anything runs.
        BadInput: no such source, factory, input or axis; a file of the source is missing or cut off.
        UnsupportedModel: operators without a counterpart, all of them named; or the ONNX checker refuses the result.
        ToolFailed: the converter stopped for another reason.
    """
    expect(ExportOptions, options)
    parse_axes(options.axes), parse_probe(options.probe)  # a typing error should not cost a conversion
    layer = layer_source(source)
    if not layer:
        found = recognise(source)
        if options.inputs:
            raise BadInput("ExportOptions.inputs describes the inputs of a layer; a saved model has its own.",
                           remedy='leave inputs empty; to name axes give axes=("x=N,3,H,W",)')
        if found.kind not in _EXPORT:
            raise BadInput(f"kit.export has no way from {found.path.name}, which is of the kind {found.kind!r}.",
                           remedy=TO_ONNX[found.kind])
        return _EXPORT[found.kind](found, options, samples, runs, report, source=_words(source, found))
    specs = parse_inputs(options.inputs)
    preflight.require("paddle", *convert_paddle.NEEDS)
    with tempfile.TemporaryDirectory(prefix="kit-export-") as folder:
        # Saved first, always: only the saved weights say whether a stored result is still the layer's.
        report(Tick(0, 5, "building the layer and saving it"))
        notes = convert_paddle.save(layer, specs, Path(folder), report)
        return _from_paddle(recognise(folder), options, samples, runs, report, source=layer.short, layer=layer,
                            named_inputs=specs, notes=notes)


def _from_paddle(found: Source, options: ExportOptions, samples: Samples | None, where: Any, report: Report, *,
                 source: str, layer: LayerSource | None = None, named_inputs: tuple[TensorSpec, ...] = (),
                 notes: list[str] | None = None) -> Exported:
    versions, _ = preflight.require("paddle", *convert_paddle.NEEDS)
    tools = {name: versions[name] for name in ("paddlepaddle", "paddlepaddle-gpu", "paddle2onnx") if name in versions}
    config = options.config or next((p for p in [found.folder / "inference.yml"] if p.is_file()), None)
    opset, reason = _opset(options)
    name = layer.factory if layer else found.name

    def work(folder: Path, report: Report) -> Exported:
        said = list(notes or [])
        metadata, about = onnx_file.configuration(config)
        with tempfile.TemporaryDirectory(prefix="kit-export-") as scratch:
            report(Tick(1, 5, "converting with Paddle2ONNX"))
            prepared, raw = convert_paddle.convert(found, Path(scratch), opset, log=folder / "log.txt", report=report)
            said += convert_paddle.words(prepared, opset, raw)
            proto = read(raw)
            if lost := onnx_file.missing_weights(proto):
                raise BadInput(f"{found.weights.name} of {name} lacks {len(lost)} parameters that the graph uses: "
                               f"{', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}.", detail="\n".join(lost),
                               remedy="it is cut off or belongs to another model: copy or save it again")
            inputs = _named_inputs(Model.open(raw).inputs, named_inputs, parse_axes(options.axes))
            onnx_file.tidy(proto, inputs, name=name, producer=("paddle2onnx", tools["paddle2onnx"]))
            onnx_file.add_metadata(proto, {**metadata, "source": " ".join(f"{k} {v}" for k, v in tools.items())})
            path = folder / f"{name}.onnx"
            report(Tick(2, 5, "checking the ONNX file"))
            onnx_file.write(proto, path, check=options.check)
            reference = partial(_open_paddle, found, prepared)
            compared = _compare(reference, path, inputs, options, samples, part(report, "comparing"))
        answers = [list(outputs.values()) for outputs in compared.references]
        runs = [(trial.feed, outputs) for trial, outputs in zip(compared.trials, answers, strict=True)]
        if onnx_file.name_outputs(proto, inputs, runs):
            onnx_file.write(proto, path, check=False)
        first = _against_layer(layer, compared, report) if layer and options.compare else ()
        saved = shutil.copytree(found.folder, folder / "paddle") if layer else None
        return _result(path, source, "dygraph" if layer else "paddle", proto, reason, compared, first,
                       prepared.operators, said + about, tools, f"from {source} by paddle2onnx {tools['paddle2onnx']}",
                       inference_model=saved)

    return run_stage("export", Exported, work, options=options, name=name, version=VERSION, runs=where, report=report,
                     inputs={"source": found, "layer": layer.short if layer else "", "config": config or "",
                             "samples": samples[: options.samples] if samples else "", "tools": tools})


def _from_onnx(found: Source, options: ExportOptions, samples: Samples | None, where: Any, report: Report, *,
               source: str) -> Exported:
    given = Model.open(found.graph)  # a cut-off file should say so before anything is written

    def work(folder: Path, report: Report) -> Exported:
        report(Tick(1, 5, "reading the ONNX file"))
        opset = given.opset if options.opset is None else options.opset
        proto = read(found.graph, weights=opset != given.opset)
        before = onnx_file.operators(proto)
        said, kept = [], found.graph
        if opset != given.opset:
            proto, kept = onnx_file.to_opset(proto, opset, found.graph), None
            said.append(f"brought from opset {given.opset} to {opset} by ONNX's version converter")
        inputs = named(given.inputs, parse_axes(options.axes))
        if inputs != given.inputs:
            onnx_file.name_axes(proto, inputs)
            if not options.axes:
                said.append(f"dynamic axes without a readable name were named: {'; '.join(map(str, inputs))}")
        metadata, about = onnx_file.configuration(options.config)
        onnx_file.add_metadata(proto, metadata)
        path = folder / found.graph.name
        report(Tick(2, 5, "checking the ONNX file"))
        onnx_file.write(proto, path, check=options.check, beside=kept)
        # There is nothing to compare an ONNX file with but itself: so with every optimisation of the runtime off.
        reference = partial(open_runner, found, graph_level="none")
        compared = _compare(reference, path, inputs, options, samples, part(report, "comparing"))
        reason = "asked for" if options.opset else "the file's own"
        return _result(path, source, "onnx", proto, reason, compared, (), before, said + about,
                       {"onnx": preflight.versions()["onnx"]}, f"brought along as {found.graph.name}")

    return run_stage("export", Exported, work, options=options, name=found.name, version=VERSION, runs=where,
                     report=report, inputs={"source": found, "samples": samples[: options.samples] if samples else ""})


_EXPORT: dict[str, Callable[..., Exported]] = {"paddle": _from_paddle, "onnx": _from_onnx}


def _result(path: Path, source: str, kind: Any, proto: Any, reason: str, compared: Compared,
            first: tuple[TensorParity, ...], operators: dict[str, int], notes: list[str], tools: dict[str, str],
            lineage: str, inference_model: Path | None = None) -> Exported:
    model = Model.open(path, lineage=(Step("export", "", lineage),))
    return Exported(
        model=model, source=source, kind=kind, opset=model.opset, opset_reason=reason, size=model.size,
        dynamic_axes={spec.name: ", ".join(map(str, spec.shape)) for spec in model.inputs},
        parity=compared.rows, dygraph_parity=first, verdict=overall((*compared.rows, *first), compared.failures),
        reference_runtime=compared.reference_runtime or "none", candidate_runtime=compared.candidate_runtime or "none",
        compared=tuple(trial.what for trial in compared.trials), failures=tuple(compared.failures),
        unsupported=onnx_file.unknown_operators(proto), notes=tuple(dict.fromkeys(notes + compared.notes)),
        operators_source=operators, operators_onnx=onnx_file.operators(proto), inference_model=inference_model,
        tools=tools)


def _compare(reference: Callable[[], Any], path: Path, inputs: tuple[TensorSpec, ...], options: ExportOptions,
             samples: Samples | None, report: Report) -> Compared:
    if not options.compare:
        return Compared()
    names = {spec.name for spec in inputs}
    trials = []
    for shapes in parse_probe(options.probe):
        if shapes.keys() != names:
            raise BadInput(f"A probe gives {', '.join(shapes)}; the model takes {', '.join(sorted(names))}.",
                           remedy="give every input a size, parted by ';'")
        trials.append(_made_up(inputs, shapes, options.seed))
    for item, feed in zip(samples.items[: options.samples] if samples else (), samples or (), strict=False):
        trials.append(Trial(f"{item.name} {_sizes(feed)}", feed))
    if not options.probe:
        made = [_made_up(inputs, shapes, options.seed, optional=True) for shapes in trial_shapes(inputs)]
        # With samples one more trial, of another size: samples that are all alike would not show a frozen shape.
        trials += made[-1:] if trials else [*made, *(
            _made_up(inputs, shapes, options.seed, optional=True, spare=True)
            for shapes in trial_shapes(inputs, SPARE_TRIALS) if shapes not in trial_shapes(inputs))]
    return compare(reference, path, trials, report)


def _against_layer(layer: LayerSource, compared: Compared, report: Report) -> tuple[TensorParity, ...]:
    report(Tick(4, 5, "comparing the layer with what was saved of it"))
    answers = convert_paddle.run_layer(layer, [dict(trial.feed) for trial in compared.trials], report)
    return compare_answers(answers, compared.references)


def _open_paddle(found: Source, prepared: Any) -> Any:
    """Paddle Inference on the source; where this Paddle cannot load it, on the copy that was made for the converter."""
    run = None
    try:
        run = open_runner(found)
        if not prepared.narrowed:
            return run
        shapes = trial_shapes(run.inputs)[0]
        run(generated(run.inputs, shapes, 0))
        return run
    except KitError as error:
        if run:
            run.close()
        if not prepared.narrowed:
            raise
        run = open_runner(prepared.graph)
        run.notes.append(f"this Paddle cannot run the model as it was saved ({error.what}); the reference is the copy "
                         "with 32-bit attributes")
        return run


def _opset(options: ExportOptions) -> tuple[int, str]:
    return (options.opset, "asked for") if options.opset else OPSETS[options.target]


def _named_inputs(inputs: tuple[TensorSpec, ...], of_layer: tuple[TensorSpec, ...],
                  axes: dict[str, tuple[int | str, ...]]) -> tuple[TensorSpec, ...]:
    """Inputs of a fresh export. The converter's own words (DynamicDimension.0) say nothing and are dropped."""
    plain = tuple(replace(spec, shape=tuple(side if isinstance(side, int) else "?" for side in spec.shape))
                  for spec in inputs)
    kept = {spec.name for spec in plain}  # an input that the layer does not use is not in the graph
    return named(plain, {spec.name: spec.shape for spec in of_layer if spec.name in kept} | axes)


def _made_up(inputs: tuple[TensorSpec, ...], shapes: dict[str, tuple[int, ...]], seed: int,
             optional: bool = False, spare: bool = False) -> Trial:
    feed = generated(inputs, shapes, seed)
    return Trial(f"made-up {_sizes(feed)}", feed, optional, spare)


def _sizes(feed: Any) -> str:
    return ", ".join("x".join(map(str, array.shape)) for array in feed.values())


def _words(source: Any, found: Source) -> str:
    """The source as a reader knows it: no absolute path."""
    path = Path(found.path)
    return found.graph.parent.name if found.kind == "paddle" and not path.is_file() else path.name
