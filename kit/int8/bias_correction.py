"""Take the mean shift that rounded weights cause off the bias.

Rounding the weights of one output channel adds the same small errors to every product; where the inputs do not have
mean zero, the errors add up to a shift of the whole channel. With the exact mean of every input channel, which
calibration has kept, the shift is a sum that needs no run of the model, and the bias can absorb it.

What this leaves out: at the borders, zero padding stands in for inputs that have another mean, so a padded convolution
keeps a part of its shift there; and the means are those of the float model.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2, with
the measured mean in place of the estimated one (https://arxiv.org/abs/1906.04721).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.calibration import Calibration
from kit.errors import BadInput
from kit.int8.qdq import Skeleton
from kit.int8.quantizable import Network, gemm_factors
from kit.int8.result import BiasCorrection
from kit.weights_file import without_constants


@dataclass(frozen=True)
class Shift:
    """What rounding the weights of one node does to the mean of its output.

    Attributes:
        node: its name.
        channels: float64 [C]: mean of the float output less that of the rounded one, a value an output channel.
        holder: name of the node whose constant takes the correction: the node itself or an Add behind it.
        at: which input of the holder that is.
        why: why nothing can take it; "" when something can.
    """

    node: str
    channels: np.ndarray
    holder: str
    at: int
    why: str = ""


def shifts(network: Network, made: Skeleton, calibration: Calibration, nodes: Collection[str]) -> tuple[Shift, ...]:
    """The mean shift of every chosen node whose weights ``made`` has rounded, in the order of the graph."""
    rounded = {source: name for name, source in made.sources.items() if name in made.rounding}
    found = []
    for node in network.nodes:
        if node.name not in nodes or network.weights(node) not in rounded:
            continue
        why = _why_not(network, node)
        if not why:
            try:
                mean = calibration.channels(node.input[0]).mean
            except BadInput:
                mean = np.array([np.nan])
            if not np.isfinite(mean).all():
                why = "the means of its input's channels were not measured"
        if why:
            found.append(Shift(node.name, np.zeros(1), "", 0, why))
            continue
        weights = network.weights(node)
        channels = _shift(node, network.values(weights), made.rounding[rounded[weights]], mean)
        found.append(Shift(node.name, channels, *_holder(network, node, len(channels))))
    return tuple(found)


def corrected(network: Network, found: tuple[Shift, ...]) -> Network:
    """A copy of the network with the shifts taken into its biases; nodes without a bias get one."""
    proto = without_constants(network.proto)
    by_name = {node.name: node for node in proto.graph.node}
    proto.graph.initializer.extend(network.proto.graph.initializer)
    for shift in found:
        if shift.why:
            continue
        import onnx

        holder = by_name[shift.holder]
        has_bias = len(holder.input) > shift.at and holder.input[shift.at]
        before = network.values(holder.input[shift.at]) if has_bias else np.zeros((), np.float32)
        # A bias of its own: another node may read the same constant.
        name = _free(f"{shift.node}_bias", network)
        after = (before + shift.channels).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(after, name))
        while len(holder.input) <= shift.at:
            holder.input.append("")
        holder.input[shift.at] = name
    read = {name for node in proto.graph.node for name in node.input}
    for tensor in [t for t in proto.graph.initializer if t.name in network.constants and t.name not in read]:
        if any(tensor.name in node.input for node in network.nodes):  # only what the correction has replaced
            proto.graph.initializer.remove(tensor)
    return Network(proto, network.name, network.path)


def described(network: Network, found: tuple[Shift, ...], made: Skeleton) -> tuple[BiasCorrection, ...]:
    """How much of every shift is left in an INT8 model, by the biases as they are stored there."""
    stored = {node.name: node for node in made.proto.graph.node}
    results = []
    for shift in found:
        if shift.why:
            results.append(BiasCorrection(shift.node, float(np.abs(shift.channels).mean()), 0.0, shift.why))
            continue
        holder = network.by_name[shift.holder]
        had = len(holder.input) > shift.at and holder.input[shift.at]
        before = network.values(holder.input[shift.at]) if had else 0.0
        gain = _constant(made, stored[shift.holder].input[shift.at]) - before
        results.append(BiasCorrection(shift.node, float(np.abs(shift.channels).mean()),
                                      float(np.abs(shift.channels - gain).mean())))
    return tuple(results)


def _why_not(network: Network, node: Any) -> str:
    weights = network.constants[network.weights(node)]
    if node.op_type == "ConvTranspose":
        return "which weights meet an output of a transposed convolution depends on its place"
    if node.op_type == "MatMul" and (node.input[1] != weights.name or len(weights.dims) != 2):
        return "its weights are on the left, or a stack of matrices"
    if node.op_type == "Gemm" and _attribute(node, "transA", 0):
        return "its input is transposed, so its channels were not measured"
    if node.op_type == "Gemm" and gemm_factors(node) != (1.0, 1.0):
        return "its product is scaled (alpha), and integer kernels would scale the bias too"
    return ""


def _shift(node: Any, values: np.ndarray, rounding: Any, mean: np.ndarray) -> np.ndarray:
    """Sum over the inputs of (float weight - rounded weight) x mean of the input, for every output channel."""
    if node.op_type == "Conv":
        found = np.zeros(len(values))
        groups = _attribute(node, "group", 1)
        means = mean.reshape(groups, -1)
        for rows, error in rounding.errors(values):
            group = np.arange(len(values))[rows] * groups // len(values)
            found[rows] = (error.reshape(*error.shape[:2], -1).sum(2, dtype=np.float64) * means[group]).sum(1)
        return found
    transposed = node.op_type == "Gemm" and _attribute(node, "transB", 0)
    found = np.zeros(values.shape[0 if transposed else 1])
    for rows, error in rounding.errors(values):
        if transposed:
            found[rows] = error @ mean
        else:
            found += mean[rows] @ error
    return found


def _holder(network: Network, node: Any, channels: int) -> tuple[str, int, str]:
    """The node whose constant can take the correction, which input that is, and why there is none."""
    if node.op_type != "MatMul":
        name = node.input[2] if len(node.input) > 2 else ""
        if name and name not in network.constants:
            return "", 0, "its bias is not constant"
        if name and int(np.prod(network.constants[name].dims)) not in (1, channels):
            return "", 0, "its bias is not one value a channel"
        return node.name, 2, ""
    readers = network.consumers.get(node.output[0], [])
    if len(readers) == 1 and readers[0].op_type == "Add" and node.output[0] not in network.outputs:
        at = 1 - list(readers[0].input).index(node.output[0])
        tensor = network.constants.get(readers[0].input[at])
        if tensor is not None and (not tensor.dims or tensor.dims[-1] in (1, channels)):
            return readers[0].name, at, ""
    return "", 0, "no constant is added to its result"


def _attribute(node: Any, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)


def _free(name: str, network: Network) -> str:
    taken = {*network.constants, *network.producers}
    return next(n for n in (name, *(f"{name}_{at}" for at in range(len(taken) + 1))) if n not in taken)


def _constant(made: Skeleton, name: str) -> np.ndarray:
    """The float values of a constant, behind a DequantizeLinear or not."""
    import onnx

    constants = {tensor.name: tensor for tensor in made.proto.graph.initializer}

    def values_of(part: str) -> np.ndarray:
        filled = made.array(part)
        return onnx.numpy_helper.to_array(constants[part]) if filled is None else filled

    if name in constants:
        return values_of(name)
    node = next(node for node in made.proto.graph.node if name in node.output)
    values, scale, *zero = map(values_of, node.input)
    return (values.astype(np.float64) - (zero[0] if zero else 0)) * scale
