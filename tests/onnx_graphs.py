"""Small ONNX files for tests: a line of nodes, with weights, written where the test wants them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FLOAT, INT64, DOUBLE, HALF, BOOL = 1, 7, 11, 10, 9


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], name: str = "", domain: str = "", **attributes):
    """One node; its name is the first output's unless given."""
    from onnx import helper

    return helper.make_node(operator, list(inputs), list(outputs), name=name or outputs[0], domain=domain, **attributes)


def save(path: Path, nodes: Sequence[Any], inputs: Mapping[str, tuple], outputs: Mapping[str, tuple],
         weights: Mapping[str, np.ndarray] | None = None, *, opset: int = 17, ir_version: int = 8,
         domains: Mapping[str, int] | None = None) -> Path:
    """Write a model.

    Args:
        inputs: name -> (element type, shape); shape None for an unknown rank.
        outputs: likewise; a shape of None is inferred where that is possible.
    """
    import onnx
    from onnx import helper, numpy_helper

    def values(table):
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in table.items()]

    graph = helper.make_graph(list(nodes), "small", values(inputs), values(outputs),
                              [numpy_helper.from_array(np.asarray(w), name) for name, w in (weights or {}).items()])
    imports = [helper.make_opsetid("", opset), *[helper.make_opsetid(d, v) for d, v in (domains or {}).items()]]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    with contextlib.suppress(Exception):  # a model with faults on purpose
        known = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.output}
        for value in model.graph.output:
            value.CopyFrom(known[value.name])
    onnx.save(model, str(path))
    return path


def line(path: Path, *nodes: Any, weights: Mapping[str, np.ndarray] | None = None, shape: tuple = (1, 4, 8, 8),
         result: int = FLOAT, **settings: Any) -> Path:
    """Nodes that lead from x (float32) to the last node's first output."""
    return save(path, nodes, {"x": (FLOAT, shape)}, {nodes[-1].output[0]: (result, None)}, weights, **settings)
