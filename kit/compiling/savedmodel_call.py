"""A SavedModel whose function calls an artefact of the kit: what was compiled stays as it is, and runs from Python.

TensorFlow saves of a Python function only its name. So the model, the settings it was compiled with and a small loader
lie in ``assets.extra`` beside the graph; ``kit.open_runner`` and the loader register the function before they call.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.compiling.onnx2tf_model import Port
from kit.compiling.savedmodel_convert import write
from kit.errors import BadInput
from kit.model import external_files
from kit.runtimes import kit_call
from kit.source import Source

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}


def prepare(source: Source, folder: Path, *, token: str, signature: str, threads: int, settings: Mapping[str, Any],
            inputs: Sequence[Port], outputs: Sequence[str], example: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Write ``assets.extra`` into a version directory: the artefact, its settings and the loader.

    Raises:
        BadInput: a kind of artefact that is not called.
    """
    if source.kind not in RUNTIMES:
        raise BadInput(f"A SavedModel cannot call {source.path.name}, which is of the kind {source.kind!r}.",
                       remedy="give an .onnx file, or what kit.compile made for onnxruntime or openvino")
    extra = folder / "assets.extra"
    extra.mkdir(parents=True)
    beside = [source.weights] if source.weights else external_files(source.graph) if source.kind == "onnx" else []
    for file in (source.graph, *beside):
        shutil.copy(file, extra / file.name)
    shutil.copy(kit_call.__file__, extra / "kit_call.py")
    about = {"format": "kit-call", "version": 1, "token": token, "runtime": RUNTIMES[source.kind],
             "model": source.graph.name, "signature": signature, "threads": threads,
             "inputs": [port.name for port in inputs], "outputs": list(outputs),
             "example": [[port.name, list(example[port.name]), port.dtype] for port in inputs]}
    if source.kind == "onnx":
        from kit.runtimes.onnxruntime import LEVELS

        about |= {"providers": list(settings.get("providers", ("CPUExecutionProvider",))),
                  "graph_optimization_level": LEVELS[settings.get("graph_level", "all")]}
    else:
        asked = settings.get("precision", "auto")
        about["properties"] = {} if asked == "auto" else {"INFERENCE_PRECISION_HINT": asked}
    (extra / kit_call.ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return about


def write_call(folder: Path, about: Mapping[str, Any], inputs: Sequence[Port],
               outputs: Sequence[Port]) -> dict[str, str]:
    """Write the graph: one PyFunc with the token of ``about``. Runs in a worker.

    Returns:
        The version of TensorFlow that wrote it.
    """
    import tensorflow as tf

    def answers(values: Sequence[Any]) -> list[Any]:
        found = tf.raw_ops.PyFunc(input=list(values), token=about["token"], Tout=[port.dtype for port in outputs])
        for value, port in zip(found, outputs, strict=True):
            value.set_shape(port.shape)
        return [tf.identity(value) for value in found]

    kept = folder.with_name(f"{folder.name}.extra")
    (folder / "assets.extra").rename(kept)  # the builder wants a folder that is not there
    folder.rmdir()
    write(folder, about["signature"], inputs, [port.name for port in outputs], answers)
    kept.rename(folder / "assets.extra")
    return {"tensorflow": tf.__version__}
