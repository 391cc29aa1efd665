"""Put a graph into the form that calibration and quantization work on.

Both prepare a model alike, so they agree on the names of its nodes and constants.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from kit.errors import UnsupportedModel
from kit.inspection.stand_ins import infer_shapes
from kit.need import need

MIN_OPSET = 13  # QuantizeLinear and DequantizeLinear take one scale a channel from here on


def prepare(proto: Any, name: str = "the model", *, quantized: bool = False) -> Any:
    """Put a model (``onnx.ModelProto``, changed in place) into the form that is calibrated and quantized.

    Constants become initializers, every node gets a name of its own, initializers are taken off the inputs, and types
    and shapes are inferred as far as possible.

    Args:
        proto: the model.
        name: of it, for messages.
        quantized: take a model with QuantizeLinear and DequantizeLinear nodes too.

    Raises:
        UnsupportedModel: the opset is older than 13, or the model is quantized already.
    """
    need("onnx", to="prepare a model for quantization", extra="base")
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < MIN_OPSET:
        raise UnsupportedModel(
            f"{name} has opset {opset}; INT8 with one scale a channel needs opset {MIN_OPSET} or newer.",
            remedy="export it again with opset=17, or raise it: kit.export(the .onnx file, "
            "kit.ExportOptions(opset=17))")
    graph = proto.graph
    if not quantized and any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node):
        raise UnsupportedModel(f"{name} holds QuantizeLinear or DequantizeLinear nodes: it is quantized already.",
                               remedy="give the float model that it was made from")
    plain(proto)
    try:
        inferred = infer_shapes(proto)
        del graph.value_info[:]
        graph.value_info.extend(inferred.graph.value_info)
    except Exception:  # the tensors without a type are then left in float
        pass
    return proto


def plain(proto: Any) -> Any:
    """Turn Constant nodes into initializers, name every node, and take initializers off the inputs, in place."""
    graph = proto.graph
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensor = _constant(node)
        if tensor is not None:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            graph.node.remove(node)
    stored = {tensor.name for tensor in graph.initializer}
    for value in [value for value in graph.input if value.name in stored]:
        graph.input.remove(value)
    _name_nodes(graph)
    return proto


def _name_nodes(graph: Any) -> None:
    taken = Counter(node.name for node in graph.node if node.name)
    for at, node in enumerate(graph.node):
        if node.name and taken[node.name] == 1:
            continue
        base = node.name or node.op_type
        name, suffix = f"{base}_{at}", 0
        while name in taken:
            suffix += 1
            name = f"{base}_{at}_{suffix}"
        node.name = name
        taken[name] = 1


def _constant(node: Any) -> Any:
    import onnx

    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
        if attribute.name in ("value_float", "value_floats"):
            value = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            return onnx.numpy_helper.from_array(np.asarray(value, np.float32))
        if attribute.name in ("value_int", "value_ints"):
            value = attribute.i if attribute.name == "value_int" else list(attribute.ints)
            return onnx.numpy_helper.from_array(np.asarray(value, np.int64))
    return None
