"""Read a model in QDQ form: what is rounded to bytes, what the weights became, what each node works on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.int8.quantizable import KNOWN_TYPES, WEIGHTED

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
        if node.op_type != "QuantizeLinear" or node.input[1] not in constants or node.input[0] in constants:
            continue
        scale = onnx.numpy_helper.to_array(constants[node.input[1]])
        zero = onnx.numpy_helper.to_array(constants[node.input[2]]) if len(node.input) > 2 else np.uint8(0)
        if scale.size == 1:
            # A model's output keeps its name behind the rounding.
            after = restored.get(node.output[0], "")
            name = after if after in outputs else node.input[0]
            found[name] = Rounded(name, node.output[0], float(scale), int(zero), np.asarray(zero).dtype.name)
    return found


@dataclass(frozen=True)
class Stored:
    """A constant that is stored in few bits.

    Attributes:
        name: as the file has it.
        output: the tensor with its values in float.
        values: float32, what rounding has left.
        dtype: such as ``int8``, ``uint4``.
        granularity: which values share a scale, for the reader.
    """

    name: str
    output: str
    values: np.ndarray
    dtype: str
    granularity: str

    @property
    def bits(self) -> int:
        """Of one value."""
        return int(self.dtype.lstrip("uint"))


_INTEGERS = {2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 21: "uint4", 22: "int4"}  # ONNX says; int32 is for biases


def stored_weights(proto: Any) -> Iterator[Stored]:
    """The constants behind DequantizeLinear that are no biases; float ones that are rounded on every run too."""
    import onnx

    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    made = {node.output[0]: node for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    for node in proto.graph.node:
        if node.op_type != "DequantizeLinear" or any(name and name not in constants for name in node.input[1:]):
            continue
        first = made.get(node.input[0])
        tensor = constants.get(first.input[0] if first is not None else node.input[0])
        if tensor is None:
            continue
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        kind = _INTEGERS.get(tensor.data_type if first is None else zero.data_type if zero is not None else 2)
        if kind is None:
            continue
        values, scale = (onnx.numpy_helper.to_array(t).astype(np.float32) for t in (tensor, constants[node.input[1]]))
        offset = onnx.numpy_helper.to_array(zero).astype(np.float32) if zero is not None else np.zeros_like(scale)
        about = {a.name: a.i for a in node.attribute}
        scale, offset, granularity = _spread(values, scale, offset, about.get("axis", 1), about.get("block_size", 0))
        if first is not None:
            bits = int(kind.lstrip("uint"))
            low = 0 if kind[0] == "u" else -(1 << (bits - 1))
            values = np.clip(np.rint(values / scale) + offset, low, low + (1 << bits) - 1)
        yield Stored(tensor.name, node.output[0], (values - offset) * scale, kind, granularity)


def _spread(values: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int,
            block: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Scales and zero points in a shape that fits the values, and which values share one."""
    if scale.size == 1:
        return scale.reshape(()), zero.reshape(()), "one scale a tensor"
    axis %= values.ndim
    if block:
        whole = [np.take(np.repeat(part, block, axis), range(values.shape[axis]), axis) for part in (scale, zero)]
        return whole[0], whole[1], f"one scale for {block} values along axis {axis}"
    shape = [-1 if at == axis else 1 for at in range(values.ndim)]
    return scale.reshape(shape), zero.reshape(shape), f"one scale a channel (axis {axis})"


def weights(proto: Any) -> dict[str, np.ndarray]:
    """The weights of a QDQ model as float32, by their names in the float model."""
    return {float_name(stored.name): stored.values for stored in stored_weights(proto)}


def float_name(name: str) -> str:
    """What a stored weight was called in the float model."""
    return name.removesuffix("_q").removesuffix("_quantized")


def effective(proto: Any, runtime: str = "onnxruntime") -> dict[str, str]:
    """What each node of a QDQ model really works on: ``INT8``, ``INT8 weights``, or ``float``.

    INT8 is a node that can be, all of whose values come from bytes and go to bytes; a product whose integer kernel
    answers in float counts too. In OpenVINO all integer kernels can; in ONNX Runtime those of MatMul and Gemm.
    """
    answers_in_float = ("MatMul", "Gemm") if runtime == "onnxruntime" else WEIGHTED
    graph = proto.graph
    dequantized = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"
                  and node.input[0] in constants}  # weights that are rounded on every run
    to_bytes = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    done_by_rounding = _done_by_rounding(proto)
    to_bytes |= {node.input[0] for node in done_by_rounding}
    gone = {node.name for node in done_by_rounding}
    found = {}
    for node in graph.node:
        if node.op_type in QDQ:
            continue
        if node.name in gone:
            found[node.name] = "INT8"
            continue
        stored = [name for name in node.input if name in dequantized and dequantized[name].input[0] in constants]
        values = [name for name in node.input if name and name not in constants and name not in stored]
        bytes_in = bool(values) and all(name in dequantized for name in values) and node.op_type in KNOWN_TYPES
        if node.op_type in WEIGHTED and any(name in constants for name in node.input[:2]):
            bytes_in = False  # float weights: the integer kernels take none
        if bytes_in and (any(output in to_bytes for output in node.output)
                       or (stored and node.op_type in answers_in_float)):
            found[node.name] = "INT8"
        else:
            found[node.name] = "INT8 weights" if stored else "float"
    return found


def _done_by_rounding(proto: Any) -> list[Any]:
    """The ReLU and Clip that only cut off what the rounding behind them cuts off anyway.

    Both runtimes drop them and let the node before them write bytes (ONNX Runtime: ReluQuantFusion, ClipQuantFusion).
    """
    readers = Counter(name for node in proto.graph.node for name in node.input)
    by_bytes = {one.bytes: one for one in rounded(proto).values()}
    ends = {node.input[0]: by_bytes[node.output[0]] for node in proto.graph.node
            if node.op_type == "QuantizeLinear" and node.output[0] in by_bytes}
    outputs = {value.name for value in proto.graph.output}
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    found = []
    for node in proto.graph.node:
        about = ends.get(node.output[0]) if node.op_type in ("Relu", "Clip") else None
        if about is None or readers[node.input[0]] != 1 or readers[node.output[0]] != 1 or node.input[0] in outputs:
            continue
        limits = np.iinfo(about.dtype)
        low, high = (about.scale * (int(end) - about.zero) for end in (limits.min, limits.max))
        cuts = _clip_limits(node, constants)
        if cuts is not None and cuts[0] <= low + about.scale / 2 and cuts[1] >= high - about.scale / 2:
            found.append(node)
    return found


def _clip_limits(node: Any, constants: dict[str, Any]) -> tuple[float, float] | None:
    """Where a ReLU or Clip cuts; None where that is computed."""
    import onnx

    if node.op_type == "Relu":
        return 0.0, np.inf
    limits = [-np.inf, np.inf]
    for at, name in enumerate(node.input[1:3]):
        if name and name not in constants:
            return None
        if name:
            limits[at] = float(onnx.numpy_helper.to_array(constants[name]))
    return limits[0], limits[1]
