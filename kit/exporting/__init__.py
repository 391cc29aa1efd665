"""Export: from a trained model to an ONNX file, with the proof that both answer alike.

Sources: a saved Paddle inference model or a Paddle layer named as ``module:factory``; a TensorFlow SavedModel, a Keras
model (file or factory), a frozen graph, a TFLite; a part of a diffusers pipeline or a PyTorch module; an ONNX file
brought along. Whatever needs a framework runs in a worker: ``kit.exporting.paddle``, ``tensorflow`` and ``torch``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.errors import BadInput
from kit.exporting.custom_operators import CustomOperator
from kit.exporting.factories import framework_of
from kit.exporting.finishing import short_name
from kit.exporting.onnx_route import from_onnx
from kit.exporting.options import ExportOptions
from kit.exporting.paddle_route import from_layer, from_paddle
from kit.exporting.pir import Unsupported
from kit.exporting.result import Exported, unsupported_table
from kit.exporting.specs import LayerSource, layer_source, parse_axes, parse_inputs, parse_probe
from kit.exporting.tensorflow_route import from_factory, from_keras, from_tensorflow
from kit.exporting.torch_route import from_diffusers, from_module
from kit.exporting.transposes import LayoutCost, layout_cost
from kit.options import expect
from kit.progress import Report, silent
from kit.samples import Samples
from kit.source import TO_ONNX, recognise

__all__ = ["CustomOperator", "ExportOptions", "Exported", "LayoutCost", "Unsupported", "export", "layout_cost",
           "unsupported_table"]

_EXPORT: dict[str, Callable[..., Exported]] = {
    "paddle": from_paddle, "onnx": from_onnx, "savedmodel": from_tensorflow, "graphdef": from_tensorflow,
    "tflite": from_tensorflow, "keras": from_keras, "diffusers": from_diffusers}
# Options that only some kinds of source have a use for: ignoring one silently would mislead.
_ONLY = {"inputs": ("keras", "graphdef", "torch"), "outputs": ("graphdef", "torch"),
         "signature": ("savedmodel", "tflite"), "dequantize": ("tflite",), "exporter": ("diffusers", "torch"),
         "operators": ("diffusers", "torch"), "part": ("diffusers",)}
_WHY = {"inputs": "describes the inputs of a layer, Keras model or frozen graph; a saved model has its own",
        "outputs": "names the nodes a frozen graph is read from, or the answers of a PyTorch module",
        "signature": "chooses one of a SavedModel or TFLite",
        "dequantize": "is about quantized TFLite models",
        "exporter": "chooses between PyTorch's exporters",
        "operators": "maps modules of PyTorch to operators",
        "part": "chooses the half of a diffusers autoencoder"}


def export(source: Any, options: ExportOptions = ExportOptions(), *, samples: Samples | None = None,  # noqa: B008
           runs: Path | str | None = None, report: Report = silent) -> Exported:
    """Make an ONNX model of ``source`` and compare the two.

    Args:
        source: a Paddle inference folder or its graph file (``inference.json``, or the old ``.pdmodel``); a SavedModel
            folder; a ``.keras`` or ``.h5`` file; a frozen graph (``.pb``); a ``.tflite``; a sub-model's folder of a
            diffusers pipeline; a layer of Paddle, a model of Keras or a module of PyTorch as
            ``"package.module:factory"`` or ``"folder/file.py:factory"``; an .onnx file.
        options: see the class.
        samples: compare on these; without them on made-up inputs, dynamic axes at two sizes. They are what the source
            takes: with another ``input_layout`` they are turned for the ONNX model.
        runs: where results go.
        report: hears progress.

    Raises:
        MissingTool: the framework or the converter is missing, or a pair of versions is known to fail; before anything
            runs.
        BadInput: no such source, factory, signature, input or axis; a file of the source is missing or cut off.
        UnsupportedModel: operators without a counterpart, all of them named; or the ONNX checker refuses the result.
        ToolFailed: the converter stopped for another reason.
    """
    expect(ExportOptions, options)
    # A typing error should not cost a conversion.
    parse_axes(options.axes), parse_probe(options.probe)
    layer = layer_source(source)
    if layer:
        return _from_factory(layer, options, samples, runs, report)
    found = recognise(source)
    if found.kind not in _EXPORT:
        raise BadInput(f"kit.export has no way from {found.path.name}, which is of the kind {found.kind!r}.",
                       remedy=TO_ONNX[found.kind])
    _check_used(options, found.kind, found.path.name)
    return _EXPORT[found.kind](found, options, samples, runs, report, source=short_name(source, found))


def _from_factory(layer: LayerSource, options: ExportOptions, samples: Samples | None, runs: Any,
                  report: Report) -> Exported:
    framework = options.framework if options.framework != "auto" else framework_of(layer)
    if framework == "tensorflow":
        _check_used(options, "keras", layer.short)
        specs = parse_inputs(options.inputs) if options.inputs else ()
        return from_factory(layer, specs, options, samples, runs, report)
    specs = parse_inputs(options.inputs)
    if framework == "torch":
        _check_used(options, "torch", layer.short)
        return from_module(layer, specs, options, samples, runs, report)
    _check_used(options, "keras", layer.short)
    return from_layer(layer, specs, options, samples, runs, report)


def _check_used(options: ExportOptions, kind: str, where: str) -> None:
    for name, kinds in _ONLY.items():
        if kind not in kinds and getattr(options, name) != getattr(ExportOptions, name):
            remedy = 'leave inputs empty; to name axes give axes=("x=N,3,H,W",)' if name == "inputs" else \
                f"leave {name} as it is"
            raise BadInput(f"ExportOptions.{name} {_WHY[name]}; {where} has no use for it.", remedy=remedy)
