"""The ways from TensorFlow: SavedModel, Keras model, frozen graph, TFLite; whatever needs TensorFlow is a worker's."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from kit import preflight
from kit.comparison import Parity, TensorParity
from kit.exporting import convert_tensorflow, onnx_file, quantized_parity
from kit.exporting.finishing import VERSION, compare_on, finish, name_inputs
from kit.exporting.layouts import TO, Relayout, sink_inputs, turn, turns
from kit.exporting.options import ExportOptions
from kit.exporting.parity import Compared
from kit.exporting.resizing import compare_resizes, match_resizes, name_resizes
from kit.exporting.result import Exported
from kit.exporting.specs import LayerSource, parse_axes, parse_inputs
from kit.exporting.tensorflow import Asked
from kit.model import Model, TensorSpec, read
from kit.progress import Report, Tick, part
from kit.record import run_stage
from kit.resizes import FRAMEWORK, METADATA, remember
from kit.runner import open_runner
from kit.samples import Samples
from kit.source import Source, recognise

_ROUTE = ("Keras 3 models have no direct way to ONNX that keeps their names: tf2onnx 1.16 does not take them and 1.17 "
          "calls outputs after layers. So model.export made a SavedModel first, which was converted; both steps were "
          "compared")
_TOOLS = ("tensorflow", "tensorflow-cpu", "keras", "tf2onnx")


def from_factory(layer: LayerSource, specs: tuple[TensorSpec, ...], options: ExportOptions, samples: Samples | None,
                 runs: Any, report: Report) -> Exported:
    """Export the Keras model that a factory makes; it is saved first, and known again by its weights."""
    preflight.require("tensorflow", *convert_tensorflow.NEEDS)
    with tempfile.TemporaryDirectory(prefix="kit-export-") as folder:
        report(Tick(0, 5, "saving the Keras model as a SavedModel"))
        stamp = convert_tensorflow.save(layer, specs, Path(folder) / "saved", report)
        return from_tensorflow(recognise(Path(folder) / "saved"), options, samples, runs, report, source=layer.short,
                               keras=layer, specs=specs, stamp=stamp)


def from_keras(found: Source, options: ExportOptions, samples: Samples | None, runs: Any, report: Report, *,
               source: str) -> Exported:
    """Export a ``.keras`` or ``.h5`` file, by way of a SavedModel."""
    preflight.require("tensorflow", *convert_tensorflow.NEEDS)
    specs = parse_inputs(options.inputs) if options.inputs else ()
    with tempfile.TemporaryDirectory(prefix="kit-export-") as folder:
        report(Tick(0, 5, "saving the Keras model as a SavedModel"))
        convert_tensorflow.save(found.graph, specs, Path(folder) / "saved", report)
        return from_tensorflow(recognise(Path(folder) / "saved"), options, samples, runs, report, source=source,
                               keras=found.graph, specs=specs, stamp=found.digest())


def from_tensorflow(found: Source, options: ExportOptions, samples: Samples | None, where: Any, report: Report, *,
                    source: str, keras: LayerSource | Path | None = None, specs: tuple[TensorSpec, ...] = (),
                    stamp: str = "") -> Exported:
    """Export a SavedModel, frozen graph or TFLite; with ``keras`` compare the model it was saved from too."""
    versions, _ = preflight.require("tensorflow", *convert_tensorflow.NEEDS)
    tools = {name: versions[name] for name in _TOOLS if name in versions and (keras or name != "keras")}
    given = parse_inputs(options.inputs) if options.inputs and found.kind == "graphdef" else ()
    opset, reason = options.choose_opset()
    name = keras.factory if isinstance(keras, LayerSource) else keras.stem if keras else found.name

    def work(folder: Path, report: Report) -> Exported:
        metadata, about = onnx_file.configuration(options.config)
        report(Tick(1, 5, "converting with tf2onnx"))
        asked = Asked(found.kind, found.graph, opset, options.signature, given, options.outputs,
                      options.input_layout == "NCHW", options.dequantize)
        with tempfile.TemporaryDirectory(prefix="kit-export-") as scratch:
            converted, raw, resized = convert_tensorflow.convert(
                asked, Path(scratch), source, log=folder / "log.txt", report=report, resize=options.compare)
            proto, plain = read(raw), Model.open(raw)
        back = Relayout(dict.fromkeys(converted.nchw, TO["NHWC"]))  # as the source has them
        inputs = name_inputs(back.specs(plain.inputs), specs or given, parse_axes(options.axes))
        relayout = Relayout(turns(inputs, options.input_layout, found.kind, "input"),
                            turns(plain.outputs, options.output_layout, found.kind, "output"))
        path = folder / f"{name}.onnx"
        onnx_file.tidy(proto, relayout.specs(inputs), name=name, producer=("tf2onnx", tools["tf2onnx"]))
        turn(proto, {}, relayout.outputs)
        if relayout.inputs:
            sink_inputs(proto)
        names = name_resizes(proto, converted.resizes)
        changed = match_resizes(proto, names)
        onnx_file.add_metadata(proto, {
            **metadata, "source": " ".join(f"{k} {v}" for k, v in tools.items()), FRAMEWORK: "tensorflow",
            **({METADATA: remember({row.node: row.tf for row in names if row.node})} if names else {})})
        report(Tick(2, 5, "checking the ONNX file"))
        onnx_file.write(proto, path, check=options.check)
        settings = {"inputs": converted.inputs, "outputs": converted.outputs} if found.kind == "graphdef" else \
            {"signature": options.signature}
        compared = compare_on(partial(open_runner, found, **settings), path, inputs, options, samples,
                              part(report, "comparing"), relayout,
                              **quantized_parity.AS_WRITTEN if converted.quantized else {})
        if onnx_file.name_outputs(proto, relayout.specs(inputs), _runs(proto, compared, relayout)):
            onnx_file.write(proto, path, check=False)
        first = _against_keras(keras, specs, compared, report) if keras and options.compare else ()
        rows = compare_resizes(proto, names, changed, resized) if options.compare else ()
        saved = shutil.copytree(found.folder, folder / "saved_model") if keras else None
        verdict, judged = _judged(found, path, options, compared, relayout) if converted.quantized else ("", [])
        notes = judged + [_ROUTE] * bool(keras) + list(converted.notes) + about
        if changed:
            notes.append(f"{len(changed)} Resize node(s) were given other modes than tf2onnx writes; see the table")
        return finish(path, source, "keras" if keras else found.kind, proto, reason, compared, notes=notes,
                      operators=converted.operators, tools=tools, options=options, relayout=relayout, first=first,
                      lineage=f"from {source} by tf2onnx {tools['tf2onnx']}", resizes=rows, inference_model=saved,
                      verdict=verdict)

    return run_stage("export", Exported, work, options=options, name=name, version=VERSION, runs=where, report=report,
                     inputs={"source": stamp or found, "keras": source if keras else "",
                             "config": options.config or "", "tools": tools,
                             "samples": samples[: options.samples] if samples else ""})


def _judged(found: Source, path: Path, options: ExportOptions, compared: Compared, relayout: Relayout
            ) -> tuple[str, list[str]]:
    """The verdict on a quantized model, and the sentence about it."""
    if not compared.trials:
        return "", []
    own = quantized_parity.spread(partial(open_runner, found, signature=options.signature, delegate=False), compared)
    fast = quantized_parity.optimised(path, compared, relayout) if not compared.failures else float("inf")
    return (quantized_parity.judge(compared.rows, own, compared.failures),
            [quantized_parity.words(compared.rows, own, fast)])


def _runs(proto: Any, compared: Compared, relayout: Relayout) -> list[tuple[Any, list[Any]]]:
    """Feeds and outputs in the order of the ONNX file's outputs, for finding out which axes are which."""
    names = [value.name for value in proto.graph.output]
    found = []
    for trial, outputs in zip(compared.trials, compared.references, strict=True):
        turned = relayout.as_model(outputs)
        found.append((relayout.feed(trial.feed), [turned[name] for name in names]))
    return found


def _against_keras(keras: LayerSource | Path, specs: tuple[TensorSpec, ...], compared: Compared, report: Report
                   ) -> tuple[TensorParity, ...]:
    report(Tick(4, 5, "comparing the Keras model with what was saved of it"))
    answers = convert_tensorflow.run(keras, specs, [dict(trial.feed) for trial in compared.trials], report)
    parity = Parity()
    for expected, found in zip(answers, compared.references, strict=True):
        parity.add(expected, found)
    return parity.result()
