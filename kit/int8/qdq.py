"""Write a model in QDQ form, and read one.

QDQ is the standard form of INT8 in ONNX: float operators between QuantizeLinear and DequantizeLinear. The writing
itself is ONNX Runtime's quantizer, given our ranges. What it leaves behind (long names, thousands of identical zero
points, inferred shapes) is tidied up afterwards: on a model of a megabyte that is a tenth of the file.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.errors import ToolFailed
from kit.int8.qdq_edits import leave_float_alone, open_ends, store_int8, tidy
from kit.int8.qdq_read import Rounded, effective, rounded, weights
from kit.int8.quantizable import Network
from kit.need import need

__all__ = ["Recipe", "Rounded", "effective", "rounded", "weights", "write"]

@dataclass(frozen=True)
class Recipe:
    """How to write INT8.

    Attributes:
        activation: ``uint8`` or ``int8``.
        per_channel: one scale for each output channel of the weights.
        reduce_range: keep weights to 7 bits.
        store_int8: nodes that compute in float keep their weights as int8 in the file.
    """

    activation: str = "uint8"
    per_channel: bool = True
    reduce_range: bool = False
    store_int8: bool = False


def write(network: Network, ranges: Mapping[str, tuple[float, float]], nodes: Collection[str], recipe: Recipe) -> Any:
    """A copy of the network with the given nodes in QDQ form, as ``onnx.ModelProto``; weights become int8.

    Args:
        network: prepared; unchanged.
        ranges: ``(low, high)`` of the activations.
        nodes: names of the nodes to make INT8.

    Raises:
        ToolFailed: ONNX Runtime's quantizer refuses; its words are in the detail.
    """
    import onnx

    tool = need("onnxruntime.quantization.qdq_quantizer", to="write an INT8 model", extra="base")
    kinds = need("onnxruntime.quantization", to="write an INT8 model", extra="base").QuantType
    calibrate = need("onnxruntime.quantization.calibrate", to="write an INT8 model", extra="base")
    proto = onnx.ModelProto()
    proto.CopyFrom(network.proto)
    marks = [(entry.key, entry.value) for entry in proto.metadata_props]
    producer = proto.producer_name, proto.producer_version
    # Shapes are inferred already; the mark keeps the quantizer from doing it again through a temporary file.
    proto.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    chosen = [network.by_name[name] for name in nodes]
    given = {name: calibrate.TensorData(lowest=np.float32(low), highest=np.float32(high))
             for name, (low, high) in _all_ranges(network, ranges).items()}
    try:
        with quiet():
            quantizer = tool.QDQQuantizer(
                proto, recipe.per_channel, recipe.reduce_range, kinds.QInt8,
                kinds.QUInt8 if recipe.activation == "uint8" else kinds.QInt8, given, list(nodes), [],
                sorted({node.op_type for node in chosen}),
                {"TensorQuantOverrides": _overrides(network, chosen, recipe)})
            made = quantizer.quantize_model()
    except Exception as error:  # ValueError, AssertionError, KeyError ... from anywhere inside
        raise ToolFailed(f"ONNX Runtime's quantizer stopped on {network.name}: {error}",
                         remedy="keep the node that it names in float (keep_float), or run kit.fix first",
                         detail=repr(error)) from error
    del made.metadata_props[:]
    for key, value in marks:
        made.metadata_props.add(key=key, value=value)
    made.producer_name, made.producer_version = producer
    leave_float_alone(made.graph, network, set(nodes))
    open_ends(made.graph)
    if recipe.store_int8:
        store_int8(made.graph, network, [node for node in network.nodes if node.name not in set(nodes)])
    return tidy(made)


def _all_ranges(network: Network, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The ranges, with those of the tensors that share another's."""
    found = dict(ranges)
    for name, like in network.same_range.items():
        if like in found:
            found[name] = found[like]
    return found


def _overrides(network: Network, nodes: list[Any], recipe: Recipe) -> dict[str, list[dict[str, Any]]]:
    """Weights for which the quantizer's own choice of axis would be wrong (grouped ConvTranspose, stacked MatMul)."""
    if not recipe.per_channel:
        return {}
    weights = {network.weights(node): network.channel_axis(node) for node in nodes if network.weights(node)}
    return {name: [{"symmetric": True}] for name, axis in weights.items() if axis is None}


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
