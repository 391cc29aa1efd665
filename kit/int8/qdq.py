"""Write a model in QDQ form, and read one.

QDQ is the standard form of INT8 in ONNX: float operators between QuantizeLinear and DequantizeLinear. The writing
itself is ONNX Runtime's quantizer, given our ranges. What it leaves behind (long names, thousands of identical zero
points, inferred shapes) is tidied up afterwards: on a model of a megabyte that is a tenth of the file.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import ToolFailed
from kit.int8.qdq_edits import leave_float_alone, open_ends, place, store_int8, tidy
from kit.int8.qdq_read import Rounded, effective, rounded, weights
from kit.int8.quantizable import LAYOUTS, WEIGHTED, Network
from kit.need import need
from kit.weights_file import EXTERNAL_ABOVE, LARGE, save_streamed, tensor_bytes, without_constants

__all__ = ["Recipe", "Rounded", "Rounding", "Skeleton", "effective", "rounded", "skeleton", "weights", "write"]

_CHUNK = 1_000_000  # values rounded at a time


@dataclass(frozen=True)
class Recipe:
    """How to write INT8.

    Attributes:
        activation: ``uint8`` or ``int8``.
        per_channel: one scale for each output channel of the weights.
        reduce_range: keep weights to 7 bits.
        store_int8: nodes that compute in float keep their weights as int8 in the file: all of them, or those named.
        weight: ``int8`` or ``uint8``.
        layout: the runtime that the nodes are laid out for; see ``kit.int8.layouts``.
    """

    activation: str = "uint8"
    per_channel: bool = True
    reduce_range: bool = False
    store_int8: bool | tuple[str, ...] = False
    weight: str = "int8"
    layout: str = "onnxruntime"


@dataclass(frozen=True)
class Skeleton:
    """An INT8 model whose large constants are empty, and what each is to be filled with.

    Attributes:
        proto: the ``onnx.ModelProto``; an empty constant says its type and shape.
        sources: empty constant -> the float weight it comes from.
        rounding: empty constant -> scale, zero point and axis; none for those that stay as they are.
    """

    proto: Any
    sources: dict[str, str]
    rounding: dict[str, Rounding]
    network: Network

    def array(self, name: str) -> np.ndarray | None:
        """The values of an empty constant, None for one that is not empty."""
        if name not in self.sources:
            return None
        values = self.network.values(self.sources[name])
        return self.rounding[name].round(values) if name in self.rounding else values

    def save(self, path: Path, external_above: int = EXTERNAL_ABOVE) -> None:
        """Write the model, one weight at a time."""
        save_streamed(self.proto, path, self.array, external_above=external_above)

    def whole(self) -> Any:
        """The model as one ``onnx.ModelProto`` with all its weights; for models that fit."""
        import onnx

        for tensor in self.proto.graph.initializer:
            if tensor.name in self.sources:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(self.array(tensor.name)), tensor.name))
        return self.proto


@dataclass(frozen=True)
class Rounding:
    """How a weight becomes bytes: one scale and zero point, or one for every channel along ``axis``."""

    scale: np.ndarray
    zero: np.ndarray
    axis: int | None

    def round(self, values: np.ndarray) -> np.ndarray:
        """The bytes of float values; a few rows at a time, so that little is held beside the result."""
        found = np.empty(values.shape, self.zero.dtype)
        for rows, level, _ in self._pieces(values):
            found[rows] = level
        return found

    def errors(self, values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """What rounding takes off float values (float less rounded), float32, a few rows at a time."""
        for rows, level, parameters in self._pieces(values):
            yield rows, values[rows] - (level - parameters[1]) * parameters[0]

    def _pieces(self, values: np.ndarray) -> Iterator[tuple[slice, np.ndarray, tuple[np.ndarray, np.ndarray]]]:
        """Rows, their levels as whole numbers in float32, and the scale and zero point that belong to them."""
        shape = [-1 if at == self.axis else 1 for at in range(values.ndim)] if self.scale.size > 1 else []
        limits = np.iinfo(self.zero.dtype)
        step = max(1, _CHUNK * len(values) // max(1, values.size))
        for at in range(0, len(values), step):
            rows = slice(at, at + step)
            scale, zero = (p.reshape(shape)[rows] if self.axis == 0 and p.size > 1 else p.reshape(shape)
                           for p in (self.scale, self.zero))
            # As ONNX Runtime's quantizer does it: in float32, half to even, zero point after rounding.
            level = np.rint(values[rows].astype(np.float32) / scale)
            level += zero
            yield rows, np.clip(level, limits.min, limits.max, out=level), (scale, zero)


def write(network: Network, ranges: Mapping[str, tuple[float, float]], nodes: Collection[str], recipe: Recipe) -> Any:
    """A copy of the network with the given nodes in QDQ form, as ``onnx.ModelProto`` with all its weights in memory.

    ``skeleton`` says the rest, and serves models of any size.
    """
    return skeleton(network, ranges, nodes, recipe).whole()


def skeleton(network: Network, ranges: Mapping[str, tuple[float, float]], nodes: Collection[str],
             recipe: Recipe) -> Skeleton:
    """A copy of the network with the given nodes in QDQ form, its large constants left empty.

    ONNX Runtime's quantizer is given the smallest and largest value of every channel in place of the weights: all
    that its scales depend on. The weights themselves are rounded with these scales when the model is written.

    Args:
        network: prepared; unchanged.
        ranges: ``(low, high)`` of the activations.
        nodes: names of the nodes to make INT8.

    Raises:
        ToolFailed: ONNX Runtime's quantizer refuses; its words are in the detail.
    """
    tool = need("onnxruntime.quantization.qdq_quantizer", to="write an INT8 model", extra="base")
    kinds = need("onnxruntime.quantization", to="write an INT8 model", extra="base").QuantType
    calibrate = need("onnxruntime.quantization.calibrate", to="write an INT8 model", extra="base")
    chosen = [network.by_name[name] for name in nodes]
    types = sorted({node.op_type for node in chosen})
    axes = network.weight_axes(chosen) if recipe.per_channel else {}
    proto, stand_ins = _with_stand_ins(network, chosen, axes)
    marks = [(entry.key, entry.value) for entry in proto.metadata_props]
    producer = proto.producer_name, proto.producer_version
    # Shapes are inferred already; the mark keeps the quantizer from doing it again through a temporary file.
    proto.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    given = {name: calibrate.TensorData(lowest=np.float32(low), highest=np.float32(high))
             for name, (low, high) in _all_ranges(network, ranges).items()}
    quant_type = {"uint8": kinds.QUInt8, "int8": kinds.QInt8}
    options = {
        # Per-tensor, where the quantizer's own choice of axis would be wrong (grouped ConvTranspose, stacked MatMul).
        "TensorQuantOverrides": {name: [{"symmetric": True}] for name, axis in axes.items() if axis is None},
        # Kernels take one zero point for all channels of the weights.
        "WeightSymmetric": recipe.weight == "int8" or recipe.per_channel,
        **LAYOUTS[recipe.layout].quantizer_options(types)}
    try:
        with quiet():
            made = tool.QDQQuantizer(proto, recipe.per_channel, recipe.reduce_range, quant_type[recipe.weight],
                                     quant_type[recipe.activation], given, list(nodes), [], types,
                                     options).quantize_model()
    except Exception as error:  # ValueError, AssertionError, KeyError ... from anywhere inside
        raise ToolFailed(f"ONNX Runtime's quantizer stopped on {network.name}: {error}",
                         remedy="keep the node that it names in float (keep_float), or run kit.fix first",
                         detail=repr(error)) from error
    del made.metadata_props[:]
    for key, value in marks:
        made.metadata_props.add(key=key, value=value)
    made.producer_name, made.producer_version = producer
    _empty(made.graph, network, stand_ins)
    leave_float_alone(made.graph, network, set(nodes))
    if LAYOUTS[recipe.layout].round_outputs:
        open_ends(made.graph)
    if recipe.store_int8:
        stored = {node.name for node in network.nodes} if recipe.store_int8 is True else set(recipe.store_int8)
        store_int8(made.graph, network, [node for node in network.nodes if node.name in stored - set(nodes)])
    return _filled_later(tidy(made), network)


def _with_stand_ins(network: Network, chosen: list[Any], axes: Mapping[str, int | None]) -> tuple[Any, set[str]]:
    """A copy of the network for the quantizer: small constants as they are, extents in place of weights."""
    import onnx

    copy = without_constants(network.proto)
    biases = {node.input[2] for node in chosen if node.op_type in WEIGHTED and len(node.input) > 2}
    looked_at = {name for node in chosen for name in node.input} - biases
    stand_ins = set()
    for tensor in network.proto.graph.initializer:
        name, axis = tensor.name, axes.get(tensor.name)
        count = int(np.prod(tensor.dims))
        if name in looked_at and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16) \
                and count > 2 * (tensor.dims[axis] if axis is not None else 1):
            copy.graph.initializer.append(onnx.numpy_helper.from_array(network.extent(name, axis), name))
            stand_ins.add(name)
        elif name not in biases and tensor_bytes(tensor) > LARGE:
            copy.graph.initializer.append(place(name, tensor))
        elif tensor.data_location == onnx.TensorProto.EXTERNAL:
            copy.graph.initializer.append(onnx.numpy_helper.from_array(np.array(network.values(name)), name))
        else:
            copy.graph.initializer.append(tensor)
    return copy, stand_ins


def _empty(graph: Any, network: Network, stand_ins: set[str]) -> None:
    """Put an empty constant of the right shape wherever a stand-in, or its bytes, is left."""
    for tensor in graph.initializer:
        source = tensor.name.removesuffix("_quantized")
        if source in stand_ins:
            real = place(source, network.constants[source], tensor.data_type)
            real.name = tensor.name
            tensor.CopyFrom(real)


def _filled_later(proto: Any, network: Network) -> Skeleton:
    """Work out what every empty constant is to be filled with, and take the marks off."""
    import onnx

    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    unpacking = {node.input[0]: node for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    sources, rounding = {}, {}
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        sources[tensor.name] = source = tensor.doc_string
        tensor.ClearField("doc_string")
        if tensor.data_type != network.constants[source].data_type:
            node = unpacking[tensor.name]
            scale, zero = (onnx.numpy_helper.to_array(constants[name]) for name in node.input[1:])
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            rounding[tensor.name] = Rounding(scale, zero, axis if scale.size > 1 else None)
    return Skeleton(proto, sources, rounding, network)


def _all_ranges(network: Network, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The ranges, with those of the tensors that share another's."""
    found = dict(ranges)
    for name, like in network.same_range.items():
        if like in found:
            found[name] = found[like]
    return found


@contextlib.contextmanager
def quiet():
    """The quantizer logs what our own result says better."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
