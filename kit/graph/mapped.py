"""Runs a graph that is in memory, with its weights where they lie: in files that ONNX Runtime maps and copies nowhere.

A model of some GB is compared after every rule. Its graph changes and its weights do not, so only the graph goes to
ONNX Runtime, as bytes, with the folder of the weights. Packing them for its kernels is switched off: that would take as
much memory again, for the few runs made here. (Measured with ``fix`` of a UNet of 3.4 GB: at most 4.9 GB, of which 3.7
are mapped files, instead of 6.7 GB; a session opens in 0.6 s instead of 16.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kit.errors import BadInput
from kit.need import need
from kit.runtimes.onnxruntime import entries, explain

Answer = dict[str, np.ndarray]


def mapped(graph: bytes, weights: Path, name: str) -> Callable[[Mapping[str, np.ndarray]], Answer]:
    """Open a graph without rewriting it.

    Args:
        graph: the .onnx file, without its external weights.
        weights: folder of these.
        name: of the file, for errors.

    Returns:
        What runs it once; raises BadInput where it does not take the feeds.

    Raises:
        UnsupportedModel: ONNX Runtime cannot load it.
    """
    ort = need("onnxruntime", to="run an ONNX model", extra="base")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors come back as exceptions
    options.intra_op_num_threads = 2
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False  # it takes memory in powers of two, and keeps it
    for key, value in {**entries(spinning=True), "session.disable_prepacking": "1",
                       "session.model_external_initializers_file_folder_path": str(weights.resolve())}.items():
        options.add_session_config_entry(key, value)
    try:
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen kinds, none documented as stable
        raise explain(error, name, ort.__version__) from error
    outputs = [output.name for output in session.get_outputs()]

    def run(feeds: Mapping[str, np.ndarray]) -> Answer:
        try:
            found = session.run(outputs, dict(feeds))
        except Exception as error:  # as above
            raise BadInput(f"onnxruntime could not run {name} on "
                           f"{ {key: list(array.shape) for key, array in feeds.items()} }.",
                           remedy="the details name the node; a shape the model cannot take is the usual cause",
                           detail=str(error)) from error
        return dict(zip(outputs, found, strict=True))

    return run
