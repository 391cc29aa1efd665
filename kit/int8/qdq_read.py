"""Read a model in QDQ form: what is rounded to bytes, what the weights became, what each node works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.int8.quantizable import KNOWN_TYPES

QDQ = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Rounded:
    """An activation that a QDQ model rounds to bytes.

    Attributes:
        tensor: its name in the float model.
        bytes: the tensor of bytes, output of QuantizeLinear.
        scale: units a step.
        zero: the byte that stands for 0.
        dtype: ``uint8`` or ``int8``.
    """

    tensor: str
    bytes: str
    scale: float
    zero: int
    dtype: str

    def back(self, values: np.ndarray) -> np.ndarray:
        """From bytes to float32."""
        return (values.astype(np.float32) - np.float32(self.zero)) * np.float32(self.scale)

    def round(self, values: np.ndarray) -> np.ndarray:
        """What is left of float32 values after rounding and clipping, float32."""
        limits = np.iinfo(self.dtype)
        level = np.rint(values / np.float32(self.scale))
        np.clip(level, limits.min - self.zero, limits.max - self.zero, out=level)
        level *= np.float32(self.scale)
        return level


def rounded(proto: Any) -> dict[str, Rounded]:
    """The activations that a QDQ model rounds, by their names in the float model."""
    import onnx

    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    restored = {node.input[0]: node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    outputs = {value.name for value in proto.graph.output}
    found = {}
    for node in proto.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[1] not in constants:
            continue
        scale = onnx.numpy_helper.to_array(constants[node.input[1]])
        zero = onnx.numpy_helper.to_array(constants[node.input[2]]) if len(node.input) > 2 else np.uint8(0)
        if scale.size == 1:
            # A model's output keeps its name behind the rounding.
            after = restored.get(node.output[0], "")
            name = after if after in outputs else node.input[0]
            found[name] = Rounded(name, node.output[0], float(scale), int(zero), np.asarray(zero).dtype.name)
    return found


def weights(proto: Any) -> dict[str, np.ndarray]:
    """The int8 weights of a QDQ model as float32, by their names in the float model."""
    import onnx

    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    found = {}
    for node in proto.graph.node:
        tensor = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if tensor is None or tensor.data_type != onnx.TensorProto.INT8:
            continue
        values, scale = onnx.numpy_helper.to_array(tensor), onnx.numpy_helper.to_array(constants[node.input[1]])
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [-1 if at == axis else 1 for at in range(values.ndim)] if scale.size > 1 else []
        found[tensor.name.removesuffix("_q")] = values.astype(np.float32) * scale.reshape(shape)
    return found


def effective(proto: Any) -> dict[str, str]:
    """What each node of a QDQ model really works on: ``INT8``, ``INT8 weights``, or ``float``.

    INT8 is a node that can be, all of whose values come from bytes and go to bytes; a product whose integer kernel
    answers in float counts too.
    """
    graph = proto.graph
    dequantized = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    constants = {tensor.name for tensor in graph.initializer}
    to_bytes = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    found = {}
    for node in graph.node:
        if node.op_type in QDQ:
            continue
        stored = [name for name in node.input if name in dequantized and dequantized[name].input[0] in constants]
        values = [name for name in node.input if name and name not in constants and name not in stored]
        bytes_in = bool(values) and all(name in dequantized for name in values) and node.op_type in KNOWN_TYPES
        if bytes_in and (any(output in to_bytes for output in node.output)
                       or (stored and node.op_type in ("MatMul", "Gemm"))):
            found[node.name] = "INT8"
        else:
            found[node.name] = "INT8 weights" if stored else "float"
    return found
