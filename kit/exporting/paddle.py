"""What runs in the Paddle worker: build and save a layer, bring an old program up to date, convert.

Paddle2ONNX is called at its binding, not through ``paddle2onnx.export``: that function swallows the error and then
runs polygraphy, which runs pip when a package is missing. Nothing is ever installed here.
"""

from __future__ import annotations

import importlib
import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput, ToolFailed, UnsupportedModel
from kit.exporting import pir
from kit.exporting.factories import made, tail
from kit.exporting.specs import LayerSource
from kit.model import TensorSpec
from kit.need import need
from kit.runtimes.paddle import sentence

OPSETS = (7, 21)  # what Paddle2ONNX 2.1.0 says it can write; asked for less, it writes 7 without a word


@dataclass(frozen=True)
class Prepared:
    """A program as the converter can take it.

    Attributes:
        graph: an inference.json, the source's own where nothing had to change.
        operators: see `pir.operators`.
        unsupported: operators that the installed converter does not list.
        narrowed: see `pir.narrow`; a copy was written when this is not empty.
        translated: from the old .pdmodel.
    """

    graph: Path
    weights: Path
    operators: dict[str, int]
    unsupported: tuple[pir.Unsupported, ...]
    narrowed: dict[str, int]
    translated: bool


def save_layer(source: LayerSource, inputs: Sequence[TensorSpec], folder: Path) -> list[str]:
    """Build the layer in this process and save it as an inference model, ``folder/inference.*``.

    Returns:
        Sentences for the reader.

    Raises:
        BadInput: the factory cannot be imported, is not there, raises, or gives no layer.
        ToolFailed: Paddle cannot save it.
    """
    paddle = need("paddle", to="save a Paddle layer", extra="paddle")
    layer, notes = _layer(source)
    specs = [paddle.static.InputSpec([None if isinstance(side, str) else side for side in spec.shape], spec.dtype,
                                     spec.name) for spec in inputs]
    try:
        paddle.jit.save(layer, str(folder / "inference"), input_spec=specs)
    except Exception as error:  # whatever the layer's own code raises while it is traced
        raise ToolFailed(
            f"Paddle could not save {source}: {sentence(error)}",
            remedy="the details show the line of the layer; check the inputs' number, order and shapes "
            f"({', '.join(map(str, inputs))})", detail=tail(error)) from error
    if not (folder / "inference.pdiparams").is_file():
        raise UnsupportedModel(f"{source} has no parameters, so Paddle saved no weights.",
                               remedy="export a layer with at least one parameter")
    return notes


def run_layer(source: LayerSource, feeds: Sequence[dict[str, np.ndarray]]) -> list[list[np.ndarray]]:
    """What the layer itself answers, before anything was saved: one list of outputs a feed."""
    paddle = need("paddle", to="run a Paddle layer", extra="paddle")
    layer, _ = _layer(source)
    answers = []
    with paddle.no_grad():
        for feed in feeds:
            try:
                given = layer(*map(paddle.to_tensor, feed.values()))
            except Exception as error:
                shapes = {name: list(array.shape) for name, array in feed.items()}
                raise BadInput(f"{source} cannot take {shapes}: {sentence(error)}", remedy="give sizes it takes "
                               "with ExportOptions(probe=...)", detail=tail(error)) from error
            answers.append([tensor.numpy() for tensor in paddle.utils.flatten(given)])
    return answers


def prepare(graph: Path, weights: Path, scratch: Path) -> Prepared:
    """Read a saved program, translate the old format, repair what Paddle 3.3 changed; list what is unsupported."""
    binding = _binding()
    translated = graph.suffix == ".pdmodel"
    if translated:
        graph, weights = _translate(graph, scratch)
    program = pir.read(graph)
    lacking = pir.unsupported(program, binding.get_all_supported_operators_pir())
    counts = pir.operators(program)
    narrowed = pir.narrow(program)
    if narrowed:
        graph = scratch / "narrowed.json"
        graph.write_text(json.dumps(program, separators=(",", ":")), encoding="utf-8")
        # Paddle Inference wants the weights under the same name beside the graph.
        weights = Path(shutil.copyfile(weights, scratch / "narrowed.pdiparams"))
    return Prepared(graph, weights, counts, lacking, narrowed, translated)


def convert(prepared: Prepared, path: Path, opset: int) -> int:
    """Write the ONNX file. Ends the process where Paddle2ONNX meets something that it lacks: it calls abort().

    Returns:
        The file's size in bytes.

    Raises:
        ToolFailed: the converter raised, or gave nothing.
    """
    binding = _binding()
    try:
        # In order: upgrade the opset where an operator needs it; not verbose; no checker (the kit runs its own);
        # allow control flow; run its optimisations; no custom operators; no calibration file, external file, FP16.
        data = binding.export(str(prepared.graph), str(prepared.weights), opset, True, False, False, True, True, {},
                              "onnxruntime", "", "", False)
    except Exception as error:
        raise ToolFailed(f"Paddle2ONNX stopped: {sentence(error)}", remedy="the details have its own words; "
                         "kit.check_environment('paddle') lists version pairs that are known to fail",
                         detail=str(error)) from error
    if not data:
        raise ToolFailed("Paddle2ONNX gave no model.", remedy="the log's last lines say why: most often the "
                         "parameters do not belong to the graph")
    return path.write_bytes(data)


def loaded(*names: str) -> list[str]:
    """Which of these modules this process has imported (for tests: no installer may run here)."""
    return [name for name in names if name in sys.modules]


def _binding() -> Any:
    need("paddle2onnx", to="convert a Paddle model", extra="paddle")
    return importlib.import_module("paddle2onnx.paddle2onnx_cpp2py_export")


def _translate(graph: Path, scratch: Path) -> tuple[Path, Path]:
    """An old .pdmodel as inference.json, by Paddle's own translator."""
    import paddle
    import paddle2onnx

    paddle.enable_static()
    try:
        with paddle.pir_utils.OldIrGuard():
            executor = paddle.static.Executor(paddle.CPUPlace())
            program, _, _ = paddle.static.load_inference_model(str(graph.with_suffix("")), executor)
        program = paddle.pir.translate_to_pir(program.desc)
        paddle2onnx.load_parameter(program)
        paddle2onnx.save_program(program, str(scratch / "translated"))
    except Exception as error:
        raise ToolFailed(f"Paddle could not read the old program {graph.name}: {sentence(error)}",
                         remedy="check that graph and parameters belong together and are whole; save the model again "
                         "with Paddle 3 if you can", detail=tail(error)) from error
    return scratch / "translated.json", scratch / "translated.pdiparams"


def _layer(source: LayerSource) -> tuple[Any, list[str]]:
    """The layer in eval mode, and a note when it was not."""
    import paddle

    # A factory with random weights must give the same layer when it is called again, to be compared with.
    random.seed(0)
    np.random.seed(0)
    paddle.seed(0)
    layer = made(source)
    if not isinstance(layer, paddle.nn.Layer):
        raise BadInput(f"{source} gave a {type(layer).__name__}, not a paddle.nn.Layer.",
                       remedy="return the layer itself from the factory; for a Keras model give "
                       "framework='tensorflow'")
    notes = [f"{source.factory} came in training mode; it was exported in eval mode"] if layer.training else []
    layer.eval()
    return layer, notes
