"""The way from Paddle: a saved inference model, or a layer that is saved first; what needs Paddle is a worker's."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from kit import preflight
from kit.comparison import TensorParity
from kit.errors import BadInput, KitError
from kit.exporting import convert_paddle, onnx_file
from kit.exporting.finishing import VERSION, compare_on, finish, name_inputs
from kit.exporting.layouts import Relayout, turn, turns
from kit.exporting.options import ExportOptions
from kit.exporting.parity import Compared, compare_answers
from kit.exporting.result import Exported
from kit.exporting.specs import LayerSource, parse_axes, trial_shapes
from kit.model import Model, TensorSpec, read
from kit.progress import Report, Tick, part
from kit.record import run_stage
from kit.runner import open_runner
from kit.samples import Samples, generated
from kit.source import Source, recognise


def from_layer(layer: LayerSource, specs: tuple[TensorSpec, ...], options: ExportOptions, samples: Samples | None,
               runs: Any, report: Report) -> Exported:
    """Export a Paddle layer. Saved first, always: only the weights say whether a stored result is still the layer's."""
    preflight.require("paddle", *convert_paddle.NEEDS)
    with tempfile.TemporaryDirectory(prefix="kit-export-") as folder:
        report(Tick(0, 5, "building the layer and saving it"))
        notes = convert_paddle.save(layer, specs, Path(folder), report)
        return from_paddle(recognise(folder), options, samples, runs, report, source=layer.short, layer=layer,
                           named_inputs=specs, notes=notes)


def from_paddle(found: Source, options: ExportOptions, samples: Samples | None, where: Any, report: Report, *,
                 source: str, layer: LayerSource | None = None, named_inputs: tuple[TensorSpec, ...] = (),
                 notes: list[str] | None = None) -> Exported:
    """Export a saved Paddle inference model; with ``layer`` compare that one too."""
    versions, _ = preflight.require("paddle", *convert_paddle.NEEDS)
    tools = {name: versions[name] for name in ("paddlepaddle", "paddlepaddle-gpu", "paddle2onnx") if name in versions}
    config = options.config or next((p for p in [found.folder / "inference.yml"] if p.is_file()), None)
    opset, reason = options.choose_opset()
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
            inputs = name_inputs(Model.open(raw).inputs, named_inputs, parse_axes(options.axes))
            onnx_file.tidy(proto, inputs, name=name, producer=("paddle2onnx", tools["paddle2onnx"]))
            onnx_file.add_metadata(proto, {**metadata, "source": " ".join(f"{k} {v}" for k, v in tools.items())})
            relayout = Relayout(turns(inputs, options.input_layout, found.kind, "input"),
                                turns(Model.open(raw).outputs, options.output_layout, found.kind, "output"))
            turn(proto, relayout.inputs, relayout.outputs)
            path = folder / f"{name}.onnx"
            report(Tick(2, 5, "checking the ONNX file"))
            onnx_file.write(proto, path, check=options.check)
            reference = partial(_open_paddle, found, prepared)
            compared = compare_on(reference, path, inputs, options, samples, part(report, "comparing"),
                                  relayout)
        names = [value.name for value in proto.graph.output]  # Paddle's own may be others
        answers = [list(relayout.as_model(dict(zip(names, outputs.values(), strict=True))).values())
                   for outputs in compared.references]
        runs = [(relayout.feed(trial.feed), outputs) for trial, outputs in zip(compared.trials, answers, strict=True)]
        if onnx_file.name_outputs(proto, relayout.specs(inputs), runs):
            onnx_file.write(proto, path, check=False)
        first = _against_layer(layer, compared, report) if layer and options.compare else ()
        saved = shutil.copytree(found.folder, folder / "paddle") if layer else None
        return finish(path, source, "dygraph" if layer else "paddle", proto, reason, compared, first=first,
                      operators=prepared.operators, notes=said + about, tools=tools, options=options, relayout=relayout,
                      lineage=f"from {source} by paddle2onnx {tools['paddle2onnx']}", inference_model=saved)

    return run_stage("export", Exported, work, options=options, name=name, version=VERSION, runs=where, report=report,
                     inputs={"source": found, "layer": layer.short if layer else "", "config": config or "",
                             "samples": samples[: options.samples] if samples else "", "tools": tools})


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
